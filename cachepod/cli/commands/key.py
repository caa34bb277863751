"""``cachepod key``."""

from __future__ import annotations

import time

import click

from cachepod.cli.describe import difference_rows, differences
from cachepod.cli.options import KEY, STORE, Invocation, complete_key, subcommand
from cachepod.cli.render import Document, Outcome, count, duration, table
from cachepod.cli.snapshots import find_summary


@subcommand("key", *STORE, *KEY)
@click.option("--explain", is_flag=True, help="Print every input of the key.")
@click.option(
    "--against",
    metavar="KEY",
    shell_complete=complete_key,
    help="Print the inputs that differ from those of a stored snapshot.",
)
def command(call: Invocation, explain: bool, against: str | None) -> Outcome:
    """
    Print the key of the environment that the configuration asks for.

    Two machines that print the same key can share a snapshot.
    """
    from cachepod.environment.explanation import explain as inputs_of
    from cachepod.environment.identity import identify

    started = time.monotonic()
    settings = call.settings()
    identity = identify(settings)
    inputs = inputs_of(identity)
    document: Document = {"key": identity.key, "family": identity.fingerprint.family}
    text = identity.key
    if explain:
        document["inputs"] = {each.name: each.value for each in inputs}
        document["sources"] = {each.name: each.where for each in inputs if each.where}
        text += "\n\n" + table(
            ("INPUT", "VALUE", "FROM"), [(each.name, each.value, each.where) for each in inputs]
        )
    if against is not None:
        other = find_summary(call.stores(settings), against)
        found = identity.fingerprint.differences(other.fingerprint)
        family = (identity.fingerprint.family, other.fingerprint.family)
        document["against"] = against
        document["differences"] = differences(found, family)
        differing = difference_rows(found, family)
        text += "\n\n" + (
            table(("INPUT", "HERE", "IN THE SNAPSHOT"), differing)
            if differing
            else f"the same inputs as {against}"
        )
    return Outcome(
        document=document,
        text=text,
        summary=f"key of {count(len(inputs), 'input')} in {duration(time.monotonic() - started)}",
    )
