"""`make scan` as a pipeline meets it: exit codes, exceptions, secrets and dangerous code of a tree."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from platform_assets.errors import ScanError
from platform_assets.scans.__main__ import EXCEPTIONS, main
from platform_assets.scans.code import find_danger
from platform_assets.scans.exceptions import read_exceptions, split_borne
from platform_assets.scans.secrets import find_secrets
from platform_assets.scans.tree import list_files

TODAY = dt.datetime.now(tz=dt.UTC).date()
HOLE = {
    "id": "GHSA-aaaa", "summary": "A hole", "aliases": ["CVE-2026-1"], "database_specific": {"severity": "HIGH"},
    "affected": [{"package": {"ecosystem": "PyPI", "name": "holey"}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.5"}]}]}],
}  # fmt: skip


def exception(
    finding: str, where: str, *, granted: dt.date = TODAY, expires: dt.date = TODAY + dt.timedelta(days=30), reason: str = "Not reached"
) -> str:
    words = f'finding = "{finding}"\nwhere = "{where}"\nreason = "{reason}"\n'
    return f"[[exception]]\n{words}granted = {granted}\nexpires = {expires}\n"


class Tree:
    """A small checkout that a scan finds nothing in, and a folder of advisories beside it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.advisories = folder / "tree", folder / "advisories"
        self.advisories.mkdir()
        (self.advisories / "GHSA-aaaa.json").write_text(json.dumps(HOLE))
        self.write("constraints.txt", "holey==1.5\n")
        self.write("ours/code.py", "print('hello')\n")
        self.write(str(EXCEPTIONS), "")
        subprocess.run(["git", "init", "-q", self.root], check=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def scan(self, *extra: str) -> int:
        return main(["--root", str(self.root), "--advisories", str(self.advisories), *extra])


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_scan_of_what_is_sound_ends_well_and_says_what_it_looked_at(tree, capsys):
    assert tree.scan() == 0
    assert "1 packages of PyPI and 3 files: 0 findings that stop it, 0 lesser, 0 borne" in capsys.readouterr().out


def test_a_finding_fails_until_an_exception_bears_it_under_whichever_name(tree, capsys):
    tree.write("constraints.txt", "holey==1.4\n")
    assert tree.scan() == 1
    assert "high     GHSA-aaaa holey: 1.4 (PyPI): A hole; mended in 1.5" in capsys.readouterr().out
    tree.write(str(EXCEPTIONS), exception("CVE-2026-1", "holey"))
    assert tree.scan() == 0
    assert "borne    GHSA-aaaa holey" in capsys.readouterr().out
    tree.write(str(EXCEPTIONS), exception("CVE-2026-1", "other"))
    assert tree.scan() == 1
    assert "bears nothing that was found here" in capsys.readouterr().out


def test_an_image_is_scanned_for_its_packages_alone(tree, tmp_path, capsys):
    info = tmp_path / "root" / "site-packages" / "holey-1.4.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: holey\nVersion: 1.4\n")
    assert tree.scan("--image", str(tmp_path / "root")) == 1
    assert "GHSA-aaaa holey" in capsys.readouterr().out
    bill = {"bomFormat": "CycloneDX", "components": [{"type": "library", "name": "holey", "purl": "pkg:pypi/holey@1.5"}]}
    (tmp_path / "bill.json").write_text(json.dumps(bill))
    assert tree.scan("--image", str(tmp_path / "bill.json")) == 0


@pytest.mark.parametrize("what", ["no pins", "no advisories", "no such folder", "no files", "nobody there"])
def test_a_scan_that_could_audit_nothing_fails_in_one_sentence(tree, what, capsys, tmp_path):
    arguments = []
    if what == "no pins":
        tree.write("constraints.txt", "")
    if what == "no advisories":
        (tree.advisories / "GHSA-aaaa.json").unlink()
    if what == "no such folder":
        arguments = ["--advisories", str(tmp_path / "nowhere")]
    if what == "no files":
        subprocess.run(["rm", "-rf", tree.root / ".git"], check=True)
    if what == "nobody there":
        arguments = ["--advisories", "http://127.0.0.1:9", "--timeout", "5"]
    assert tree.scan(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("scan: ")
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (exception("A", "b", granted=TODAY - dt.timedelta(days=9), expires=TODAY - dt.timedelta(days=1)), "ran out on"),
        (exception("A", "b", expires=TODAY + dt.timedelta(days=367)), "within 366 days"),
        (exception("A", "b", expires=TODAY), "right would be an end after that"),
        (exception("A", "b", granted=TODAY + dt.timedelta(days=1)), "after today"),
        (exception("A", "b", reason="  "), "reason is '  '; right would be words"),
        (exception("A", "b").replace(f"granted = {TODAY}", f'granted = "{TODAY}"'), "a day without quotes"),
        (exception("A", "b").replace(f"granted = {TODAY}", f"granted = {TODAY}T00:00:00"), "a day without quotes"),
        ("[[exception]]\nfinding = 'A'\n", "exception 1 has finding; right would be finding, where, reason, granted, expires"),
        (exception("A", "b") + "ticket = 7\n", "each once"), ("exception = 7", "right would be"), ("[other]\n", "right would be"), ("]", "cannot be read"),
    ],
)  # fmt: skip
def test_an_exception_that_has_run_out_or_is_malformed_fails_in_one_sentence(tree, text, message, capsys):
    tree.write(str(EXCEPTIONS), text)
    assert tree.scan() == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_an_exception_holds_through_its_last_day(tmp_path):
    (tmp_path / "e.toml").write_text(exception("A", "b", granted=TODAY - dt.timedelta(days=366), expires=TODAY))
    (one,) = read_exceptions(tmp_path / "e.toml", TODAY)
    assert one.expires == TODAY
    with pytest.raises(ScanError, match="ran out"):
        read_exceptions(tmp_path / "e.toml", TODAY + dt.timedelta(days=1))
    with pytest.raises(ScanError, match="cannot be read"):
        read_exceptions(tmp_path / "none.toml", TODAY)


SECRETS = {  # put together here, so that a scan of this file finds nothing
    "private-key": "-----BEGIN " + "RSA PRIVATE KEY-----", "aws-access-key": "AKIA" + "IOSFODNN7EXAMPLE", "github-token": "ghp_" + "aB3" * 12,
    "gitlab-token": "glpat-" + "x1" * 10, "slack-token": "xoxb-" + "1234567890" * 2, "google-key": "AIza" + "B" * 35,
    "json-web-token": "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + "." + "dozjgNryP4J3jVmNHl0w5N", "stripe-key": "sk_" + "live_" + "a1" * 12,
    "password-in-address": "postgresql://" + "falaj:hunter2@db.example.org/x", "assigned-secret": "api_key = " + "'q8Zt5Lw0Xr3Vb7Nc1Md6Kp'",
    "vault-token": "hvs." + "CAESIJ1234567890abcdefghij", "pypi-token": "pypi-" + "AgE" + "b2" * 30,
}  # fmt: skip


@pytest.mark.parametrize("rule", SECRETS)
def test_a_secret_is_found_and_never_repeated(tmp_path, rule):
    (tmp_path / "file").write_text(f"one\ntwo {SECRETS[rule]}\n")
    (found,) = find_secrets(tmp_path, ["file"])
    assert (found.name, found.where, found.text, found.stops) == (rule, "file", "line 2 looks like one", True)


@pytest.mark.parametrize(
    "line",
    [
        "password_file = '/etc/falaj/redis.password'", "token = read_token(path)", "postgresql://falaj:secret@127.0.0.1/x", "secret = 'client_secret_basic'",
        "https://example.org/a:b@c", "-----BEGIN PUBLIC KEY-----", "token: str = hashlib.sha256(content).hexdigest()", "password: ${DATABASE_PASSWORD_OF_TEAM}",
    ],
)  # fmt: skip
def test_what_only_speaks_of_secrets_is_none(tmp_path, line):
    (tmp_path / "file").write_text(line)
    assert find_secrets(tmp_path, ["file"]) == []


def test_a_file_too_large_or_gone_is_not_passed_over(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (8 << 20) + b"y")
    with pytest.raises(ScanError, match="more than 8388608"):
        find_secrets(tmp_path, ["file"])
    with pytest.raises(ScanError, match="cannot be read"):
        find_secrets(tmp_path, ["gone"])


def test_ignored_files_are_left_out_and_new_ones_are_not(tree):
    tree.write(".gitignore", "secret.env\n")
    tree.write("secret.env", "x")
    tree.write("new.py", "x = 1\n")
    assert list_files(tree.root) == [".gitignore", "constraints.txt", str(EXCEPTIONS), "new.py", "ours/code.py"]


def test_dangerous_code_is_found_whatever_its_comments_say(tree):
    tree.write("pyproject.toml", "[tool.ruff.lint]\nignore = ['S']\n")
    tree.write("ours/code.py", "import subprocess\nsubprocess.run('ls', shell=True)  # noqa: S602\nx = eval(input())  # noqa\n")
    tree.write("tests/test_x.py", "eval('1')\n")
    found = find_danger(tree.root, list_files(tree.root))
    assert sorted((one.name, one.where, one.text.partition(":")[0]) for one in found) == [
        ("S307", "ours/code.py", "line 3"), ("S602", "ours/code.py", "line 2")
    ]  # fmt: skip


def test_code_that_cannot_be_read_or_is_not_there_is_not_passed_over(tree):
    tree.write("ours/code.py", "def (:\n")
    with pytest.raises(ScanError, match=r"ours/code\.py:1 is no Python"):
        find_danger(tree.root, ["ours/code.py"])
    with pytest.raises(ScanError, match="no code to scan"):
        find_danger(tree.root, ["constraints.txt", "tests/test_x.py"])


def test_this_tree_holds_no_secret_and_no_danger_that_is_not_borne(checkout):
    if not (checkout / ".git").exists():
        pytest.skip("not a Git checkout")
    files = list_files(checkout)
    written = tomllib.loads((checkout / EXCEPTIONS).read_text())["exception"]
    exceptions = read_exceptions(checkout / EXCEPTIONS, max(one["granted"] for one in written))  # their end is the scan's business
    open_, _, idle = split_borne([*find_secrets(checkout, files), *find_danger(checkout, files)], exceptions)
    assert (open_, [one for one in idle if "/" in one.where]) == ([], [])
