"""The results of the hook's parts, as outcomes of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachepod.cli.render import (
    Document,
    Outcome,
    age,
    count,
    duration,
    failure,
    phases,
    printable,
    work,
)
from cachepod.errors import human_bytes
from cachepod.model.fingerprint import Difference

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.hook import Installation
    from cachepod.environment.identity import Identity
    from cachepod.environment.layer import LayerInstallation
    from cachepod.environment.publication import Publication
    from cachepod.environment.restoration import Restoration
    from cachepod.snapshot.catalog import Relative

_SHOWN = 12  # differing inputs in a log; `cachepod key --against` has all of them
_ABSENT = "-"
_STANDS = {
    "present": "present in {}",
    "lost": "another publisher was first in {}",
    "filling": "on its way to {}, in the background",
    "absent": "not in {}",
    "unsigned": "not stored in {}: there is no signing_key to sign it with",
    "withheld": "not stored in {}",
}


def restoration(
    result: Restoration, settings: Settings, identity: Identity, seconds: float
) -> Outcome:
    """The outcome of a restore that took *seconds* altogether."""
    from cachepod.environment.hook import trees

    roots = trees(settings, identity)
    document: Document = {
        "outcome": result.outcome,
        "key": result.key,
        "trees": {name: str(root) for name, root in roots.items()},
        "seconds": round(seconds, 3),
        "exit_code": result.exit_code,
    }
    if result.source:
        document["source"] = result.source
        document["store"] = result.store
    if result.lease:
        document["lease"] = result.lease
        document["waited"] = round(result.waited, 3)
        if result.built_by:
            document["built_by"] = result.built_by
    if result.nearest is not None:
        document["nearest"] = _relative(result.nearest)
    report = result.report
    took: dict[str, float] = {}
    if report is not None:
        took = dict(report.phases)
        document.update(
            files=report.files,
            size=report.size,
            read=report.read,
            written=report.written,
            phases={name: round(value, 3) for name, value in report.phases.items()},
            warnings=list(report.warnings),
        )
        if report.profile is not None:
            from cachepod.cli.profile import profile_document

            document["profile"] = profile_document(report.profile)
    if result.checked:
        took["check"] = result.checked
        document.setdefault("phases", {})["check"] = round(result.checked, 3)
    where = ", ".join(str(root) for root in roots.values())
    if not roots:
        summary = "nothing to restore: the image has the apt packages"
    elif result.outcome == "confirmed":
        applied = {name: took[name] for name in took if name == "apply"}
        summary = f"confirmed {result.key} in {where} in {duration(seconds)}{phases(applied)}"
    elif report is not None:
        summary = (
            f"{result.outcome} {result.source} in {where}: "
            f"{work(report.files, report.size, seconds)}{phases(took)}"
        )
    else:
        summary = f"{result.outcome}: {result.key} in {duration(seconds)}"
    if result.filling:
        document["filling"] = list(result.filling)
        summary += f"; {', '.join(result.filling)} is being filled in the background"
    if result.lacks:
        document["lacks"] = result.lacks
        summary += f"; {result.lacks} is not in it, for none was to be had when it was installed"
    if result.lease == "awaited":
        builder = printable(result.built_by) or "another container"
        summary += f"; waited {duration(result.waited)} for {builder}"
    outcome = Outcome(document=document, summary=summary, exit_code=result.exit_code)
    if result.problem is None:
        return outcome
    told = failure(result.problem)
    document["error"] = told.document["error"]
    error = told.error
    if result.outcome == "partial":
        brought = "the nearest snapshot" if result.nearest else "the environment"
        error = f"{error}; {brought} was restored, cachepod install tops it up"
    if result.remark:
        error = f"{error}; {printable(result.remark)}"
    return Outcome(
        document=document,
        summary=summary,
        error=error,
        details=tuple(_nearest_lines(result.nearest)),
        exit_code=result.exit_code,
    )


def _relative(relative: Relative) -> Document:
    return {
        "key": relative.summary.key,
        "created": relative.summary.created,
        "differences": differences(relative.differences),
    }


def _nearest_lines(relative: Relative | None) -> list[str]:
    if relative is None:
        return []
    from cachepod.environment.explanation import in_words

    summary = relative.summary
    lines = [f"nearest: {summary.key}, published {age(summary.created)}"]
    words = in_words(relative.differences)
    lines += [f"  {sentence}" for sentence in words[:_SHOWN]]
    if len(words) > _SHOWN:
        lines.append(f"  and {count(len(words) - _SHOWN, 'more')}; see cachepod key --against")
    return [printable(line) for line in lines]


def differences(
    found: Sequence[Difference],
    family: tuple[str, str] | None = None,
    names: tuple[str, str] = ("ours", "theirs"),
) -> list[Document]:
    """
    Inputs that differ, for JSON.

    Args:
        family: Ours and theirs, where they may differ too.

        names: What to call the two sides.
    """
    ours, theirs = names
    return [
        {"input": each.name, ours: each.ours, theirs: each.theirs}
        for each in _with_family(found, family)
    ]


def difference_rows(
    found: Sequence[Difference], family: tuple[str, str] | None = None
) -> list[tuple[str, str, str]]:
    """The same as rows of a table."""
    return [
        (
            each.name,
            _ABSENT if each.ours is None else each.ours,
            _ABSENT if each.theirs is None else each.theirs,
        )
        for each in _with_family(found, family)
    ]


def _with_family(found: Sequence[Difference], family: tuple[str, str] | None) -> list[Difference]:
    if family is None or family[0] == family[1]:
        return list(found)
    return [Difference("family", *family), *found]


def installation(
    done: Installation | None, key: str, settings: Settings, seconds: float
) -> Outcome:
    """The outcome of an install; *done* is None where nothing is asked for that is installed."""
    document: Document = {"key": key, "seconds": round(seconds, 3), "exit_code": 0}
    if done is None:
        document["outcome"] = "nothing"
        return Outcome(
            document=document, summary="nothing to install: no requirements are configured"
        )
    report, layer = done.environment, done.layer
    took: dict[str, float] = {}
    parts: list[str] = []
    outcome = "present"
    if layer is not None:
        document["layer"], said = _layer(layer)
        if layer.seconds:
            took["apt"] = layer.seconds
        if report is None:
            outcome = document["layer"]["outcome"]
        if said:
            parts.append(said)
    if report is not None:
        outcome = report.outcome
        took.update(report.phases)
        document.update(
            prefix=str(settings.prefix),
            packages=report.packages,
            files=report.files,
            size=report.size,
        )
        brought = report.flash_attn
        if brought is not None:
            document["flash_attn"] = {
                "outcome": brought.outcome,
                "wheel": brought.wheel,
                "tried": list(brought.tried),
            }
            if brought.outcome == "missing":
                parts.append("without flash-attn")
        if outcome == "present":
            parts.insert(0, f"present: {settings.prefix} is complete")
        else:
            parts.insert(
                0,
                f"{outcome} {settings.prefix}: {count(report.packages, 'package')}, "
                f"{work(report.files, report.size, max(0.0, seconds - took.get('apt', 0.0)))}",
            )
    document.update(outcome=outcome, phases={name: round(value, 3) for name, value in took.items()})
    if not parts:
        parts.append("present: the apt packages are there")
    summary = ", ".join(parts)
    if report is None or outcome == "present":
        summary += f", {duration(seconds)}"
    return Outcome(document=document, summary=f"{summary}{phases(took)}")


def _layer(done: LayerInstallation) -> tuple[Document, str]:
    """What an install did about apt packages: for JSON, and as a clause."""
    if done.problem is not None:
        told = failure(done.problem)
        return {"outcome": "failed", "error": told.document["error"]}, "without the apt packages"
    report = done.report
    if report is None or report.outcome == "present":
        return {"outcome": "present"}, ""
    document: Document = {
        "outcome": report.outcome,
        "packages": dict(report.packages),
        "files": report.files,
        "size": report.size,
        "publishable": report.publishable,
        "phases": {name: round(value, 3) for name, value in report.phases.items()},
        "warnings": list(report.warnings),
    }
    if report.why:
        document["why"] = report.why
    said = count(len(report.packages), "apt package")
    if report.files:
        said += f" ({count(report.files, 'file')}, {human_bytes(report.size)})"
    return document, said


def attempts(done: Installation | None) -> tuple[str, ...]:
    """What did not help in an install, though it went well in the end."""
    report = done.environment if done is not None else None
    brought = report.flash_attn if report is not None else None
    return brought.tried if brought is not None else ()


def publication(done: Sequence[Publication], key: str, seconds: float) -> Outcome:
    """The outcome of a publish to one or more stores."""
    stored: list[Document] = []
    parts: list[str] = []
    for each in done:
        entry: Document = {"store": each.store, "outcome": each.outcome}
        report, copied = each.report, each.copied
        if report is not None:
            took = report.phases or {}
            entry.update(
                files=report.files,
                size=report.size,
                stored_new=report.stored_new,
                reused=report.reused,
                read=report.read,
                phases={name: round(value, 3) for name, value in took.items()},
                warnings=list(report.warnings),
            )
            if report.profile is not None:
                from cachepod.cli.profile import profile_document

                entry["profile"] = profile_document(report.profile)
        elif each.why:
            entry["why"] = each.why
        elif copied is not None:
            entry.update(packs=copied.packs, size=copied.size, there=copied.there)
        parts.append(_published(each))
        stored.append(entry)
    outcomes = {each.outcome for each in done}
    document: Document = {
        "outcome": next(
            (o for o in ("stored", "copied", "unsigned", "withheld") if o in outcomes), "present"
        ),
        "key": key,
        "stores": stored,
        "seconds": round(seconds, 3),
        "exit_code": 0,
    }
    summary = f"{key} {'; '.join(parts)} ({duration(seconds)})"
    if not parts:
        summary = "nothing to publish: the image has the apt packages"
    return Outcome(document=document, summary=summary)


def _published(each: Publication) -> str:
    """What a publish did at one store, after the key's name."""
    report, copied = each.report, each.copied
    if each.outcome == "stored" and report is not None:
        took = report.phases or {}
        return (
            f"stored in {each.store}: "
            f"{work(report.files, report.size, sum(took.values()))}, "
            f"{human_bytes(report.stored_new)} new{phases(took)}"
        )
    if each.outcome == "copied" and copied is not None:
        took = copied.phases
        return (
            f"copied to {each.store}: {count(copied.packs, 'pack')}, "
            f"{human_bytes(copied.size)} in {duration(sum(took.values()))}"
        )
    said = _STANDS[each.outcome].format(each.store)
    return f"{said}: {each.why}" if each.why else said
