#!/usr/bin/python3
"""Runs what the documents say, and holds them to what comes of it. tests/lab/docs calls it; see --help.

What a document may hold, in the order in which it is run:

    <!-- lab: COMMANDS -->       what the reader has done already: run by the lab's own shell, which has lib.sh and
                                 docs.sh, or on a host: '<!-- lab, node-a: COMMANDS -->'
    <!-- file: PATH -->          the block that follows is the file PATH, and is written there
    <!-- not run: REASON -->     the block that follows is not run
    ```console                   commands behind prompts, and what they print. '# ' is root on the storage node,
                                 'node-a# ' and 'node-b# ' are root on hosts. '...' alone on a line stands for any lines
    ```sh                        commands of root's on the storage node, which must end with exit status 0
    ```targetcli                 what is typed into targetcli

A block of another kind, or an indented one, needs one of the comments: else nobody would know whether it holds.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

RUN = ("console", "sh", "targetcli")
PROMPT = re.compile(r"((?:node-[a-z])?)# (?!HELP |TYPE )(.*)")
FENCE = re.compile(r"( {0,3})```([a-z]*)$")
COMMENT = re.compile(r"<!-- (lab(?:, node-[a-z])?|file|not run):")
# One command may take so long, emulated CPUs included.
SECONDS = 300

# What is another each time: patterns, and what stands for them when outputs are compared. Of an <id> it is compared whether
# it is the same as one before in the document.
MASKS = [
    # Serial numbers of logical units, and the names that are made of them.
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
    (r"\b(?!0x)3?(6?[0-9a-f]{32}|6001405[0-9a-f]{25})\b", "<id>"),
    (r"\b0x6001405[0-9a-f]+\b", "<id>"),
    # open-iscsi counts its sessions, and makes an ISID of each number.
    (r"0x00023d[0-9a-f]{6}", "<isid>"),
    # When it was.
    (r"\b[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+\b", "<time>"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.]\d+)?(Z|[+-]\d\d:?\d\d)?\b", "<time>"),
    (r"\b[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d\b", "<time>"),
    (r"\b\d+([.]\d+)?\s?(ns|us|µs|ms|s|min) ago\b", "<time>"),
    (r"\bsince \d+ s\b", "<time>"),
    # Processes.
    (r"\[\d+\]", "[<pid>]"),
    (r"\b(PID:?|pid) \d+\b", r"\1 <pid>"),
    # How many commands the hosts' kernels send by themselves.
    (r"\b\d+ \(\d+ reads, \d+ writes\)", "<commands>"),
    # The checksum of a record that has a serial number in it.
    (r"should be [0-9a-f]{8} and is [0-9a-f]{8}\b", "should be <sum> and is <sum>"),
    # open-iscsi counts its sessions, and the kernel its SCSI hosts.
    (r"\bsid: \d+", "sid: <n>"),
    (r"\b\d+:0:0:(\d+) (sd[a-z])\b", r"<n>:0:0:\1 \2"),
    # Columns are as wide as what was there when they were made.
    (r"(?<=\S) {2,}", "  "),
    (r"-{3,}", "---"),
]

# Lines that are passed over, where they stand and where they are printed: how a disk performs. tcmu-pr status has some of
# them only after the disk's first ten seconds, and others only while hosts use it.
PASSED_OVER = re.compile(r"  (queue|read|write|flush|idle) ")


class Wrong(Exception):
    """What a document may not hold."""


@dataclass
class Block:
    """A part of a document that is run, or that says why it is not."""

    kind: str  # "lab", or what stands behind the fence
    note: tuple  # ("file", PATH), ("not run", REASON) or ()
    first: int  # the line that its text begins in, from 0
    text: list


def parse(name, lines):
    """The blocks of a document; raises Wrong if one can't be run and does not say why."""
    blocks, note, line = [], (), 0
    in_list = False
    while line < len(lines):
        text = lines[line]
        comment, fence = COMMENT.match(text), FENCE.match(text)
        if comment:
            first = line
            while not lines[line].rstrip().endswith("-->"):
                line += 1
                if line == len(lines):
                    raise Wrong(f"{name}:{first + 1}: the comment has no end")
            inner = "\n".join(lines[first : line + 1])[comment.end() :].strip().removesuffix("-->").strip()
            if comment[1].startswith("lab"):
                blocks.append(Block(comment[1], (), first, inner.split("\n")))
            else:
                if not inner:
                    raise Wrong(f"{name}:{first + 1}: '{comment[1]}' says nothing")
                note = (comment[1], inner)
        elif fence:
            kind, indent, first = fence[2], len(fence[1]), line + 1
            while True:
                line += 1
                if line == len(lines):
                    raise Wrong(f"{name}:{first}: the block has no end")
                if lines[line].strip() == "```":
                    break
            block = Block(kind, note, first, [each[indent:] for each in lines[first:line]])
            check(name, block)
            blocks.append(block)
            note = ()
        else:
            if text.strip() and note:
                raise Wrong(f"{name}:{line + 1}: the comment before is about a block, and none follows")
            if text.startswith("    ") and not in_list and not lines[line - 1].strip():
                raise Wrong(f"{name}:{line + 1}: an indented block: put it between fences, and say what it is")
            if text.strip():
                in_list = bool(re.match(r" *([-*]|[0-9]+[.]) ", text)) or (in_list and text.startswith(" "))
        line += 1
    if note:
        raise Wrong(f"{name}: the last comment is about a block, and none follows")
    return blocks


def check(name, block):
    """Raises Wrong if the block can't be run and does not say why."""
    place = f"{name}:{block.first}"
    if not block.note and block.kind not in RUN:
        raise Wrong(f"{place}: is a {block.kind or 'nameless'} block run? Make it one of {', '.join(RUN)}, or write"
                    " '<!-- file: PATH -->' or '<!-- not run: REASON -->' before it")
    if block.note and block.note[0] == "not run":
        return
    if block.kind == "console" and not (block.text and PROMPT.match(block.text[0])):
        raise Wrong(f"{place}: a transcript begins with a prompt and a command: '# true'")


def commands(block):
    """The commands of a transcript: who types, the lines that are typed, and the lines that are printed."""
    typed = []
    for line in block.text:
        prompt = PROMPT.fullmatch(line)
        if typed and typed[-1][1][-1].endswith("\\") and not typed[-1][2]:
            typed[-1][1].append(line)
        elif prompt:
            typed.append((prompt[1], [prompt[2]], []))
        else:
            typed[-1][2].append(line)
    return typed


def masked(line, ids):
    """The line without what is another each time. Gives each <id> a number, in `ids`."""
    def word_for(word):
        return (lambda match: f"<id {ids.setdefault(match[0], len(ids) + 1)}>") if word == "<id>" else word

    for pattern, word in MASKS:
        line = re.sub(pattern, word_for(word), line)
    return line.rstrip()


class Comparison:
    """Compares what the commands of one document print with what it has."""

    def __init__(self):
        self.ids_wanted, self.ids_found = {}, {}

    def same(self, wanted, found):
        """Whether what was printed is what the document has, where '...' stands for any lines."""
        wanted, found = ([line for line in lines if not PASSED_OVER.match(line)] for lines in (wanted, found))
        pattern = "".join("(.*\n)*" if line == "..." else re.escape(masked(line, self.ids_wanted) + "\n") for line in wanted)
        return re.fullmatch(pattern, "".join(masked(line, self.ids_found) + "\n" for line in found)) is not None


class Shell:
    """A shell of bash that goes on from one command to the next."""

    def __init__(self, command):
        self.directory = tempfile.mkdtemp(prefix="tcmu-pr-docs.")
        read_end, write_end = os.pipe()
        self.ended = os.fdopen(read_end)
        self.process = subprocess.Popen(
            [*command, "bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE, text=True, pass_fds=[write_end],
        )
        self.fd = write_end
        os.close(write_end)

    def run(self, command):
        """Runs it: its exit status, and the lines that it prints."""
        script, output = f"{self.directory}/script", f"{self.directory}/output"
        with open(script, "w") as file:
            file.write(command + "\n")
        watch = subprocess.Popen(
            ["bash", "-c", f"sleep {SECONDS}; pkill -KILL -P {self.process.pid}"], start_new_session=True)
        # What it starts in the background need not keep the pipe.
        self.process.stdin.write(
            f"{{ source {script}; }} </dev/null >{output} 2>&1 {self.fd}>&-; echo $? >&{self.fd}\n")
        self.process.stdin.flush()
        status = self.ended.readline().strip()
        os.killpg(watch.pid, 9)
        watch.wait()
        with open(output, errors="replace") as file:
            lines = [line.rstrip() for line in file.read().split("\n")]
        if lines and not lines[-1]:
            lines.pop()
        return int(status or 255), lines


class Runner:
    """Runs documents, and tells what holds."""

    def __init__(self, shell_of):
        self.shell_of = shell_of
        self.shells = {}
        self.failed = 0

    def shell(self, who):
        """The shell of root on the storage node (''), on a host ('node-a'), or of the lab ('lab')."""
        if who not in self.shells:
            self.shells[who] = Shell([*self.shell_of, who or "storage"])
        return self.shells[who]

    def tell(self, good, words, lines=()):
        """A line of the test's transcript."""
        print("ok   " if good else "FAIL ", words, flush=True)
        if not good:
            self.failed += 1
            for line in lines:
                print("     ", line, flush=True)

    def document(self, name, lines):
        """Runs a document. The same document as it should be."""
        written = list(lines)
        comparison = Comparison()
        changes, failed = [], self.failed
        for block in parse(name, lines):
            place = f"{name}:{block.first + 1}"
            if block.note and block.note[0] == "not run":
                continue
            if block.note:
                self.write(place, block.note[1], block.text)
            elif block.kind == "console":
                indent = re.match(r" *", lines[block.first - 1])[0]
                text = self.console(place, block, comparison)
                changes.append((block, [indent + line if line else line for line in text]))
            else:
                self.commands(place, block)
        if self.failed == failed:
            return written
        # From the end, so that the numbers of lines before stay right. All of them, so that they are of one run.
        for block, text in reversed(changes):
            written[block.first : block.first + len(block.text)] = text
        return written

    def write(self, place, path, text):
        """Writes a file of a document."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("\n".join(text) + "\n")
        self.tell(True, f"{place}: {path}")

    def commands(self, place, block):
        """Runs commands that must succeed."""
        if block.kind == "targetcli":
            words = "targetcli"
            status, found = self.shell("lab").run(
                "inside \"$lab_directory/targetcli-batch\" <<'END'\n" + "\n".join(block.text) + "\nEND")
        else:
            words = "commands" if block.kind == "sh" else block.kind
            shell = self.shell("" if block.kind == "sh" else block.kind.removeprefix("lab, "))
            text = "\n".join(block.text)
            status, found = shell.run(text if "," in block.kind else f"(set -e\n{text}\n)")
        self.tell(status == 0, f"{place}: {words}", [*block.text, f"exit status {status}:", *found])

    def console(self, place, block, comparison):
        """Runs a transcript. The same as it is now."""
        text = []
        for who, typed, wanted in commands(block):
            _, found = self.shell(who).run("\n".join(typed))
            good = comparison.same(wanted, found)
            self.tell(good, f"{place}: {who}# {typed[0]}", ["it printed:", *found, "and not:", *wanted])
            text.append(f"{who}# {typed[0]}")
            text += typed[1:]
            text += wanted if good and "..." in wanted else found
        return text


def selftest():
    """That what should fail does."""
    def wrong(text):
        try:
            parse("a.md", text.split("\n"))
        except Wrong:
            return True
        return False

    good = "text\n\n```console\n# echo a\na\n```\n"
    assert not wrong(good)
    assert wrong("```\na\n```"), "a block without a kind"
    assert wrong("```text\na\n```"), "text that nobody runs"
    assert not wrong("<!-- not run: it is a picture -->\n```text\na\n```")
    assert wrong("<!-- not run: -->\n```text\na\n```"), "no reason"
    assert wrong("<!-- not run: it is a picture -->\ntext"), "a comment without a block"
    assert wrong("text\n\n    indented\n"), "an indented block"
    assert not wrong("- item\n\n  more of it\n\n    and more\n")
    assert wrong("```sh\ntrue\n"), "a block without an end"
    assert wrong("```console\noutput only\n```")
    assert [(block.kind, block.text) for block in parse("a.md", "<!-- lab: a\nb -->\n  ```sh\n  c\n  ```".split("\n"))] == [
        ("lab", ["a", "b"]), ("sh", ["c"])]
    assert commands(Block("console", (), 0, ["# a \\", "  b", "c", "node-a# d", "# HELP e"])) == [
        ("", ["a \\", "  b"], ["c"]), ("node-a", ["d"], ["# HELP e"])]
    assert Comparison().same(["a", "...", "d"], ["a", "b", "c", "d"])
    assert not Comparison().same(["a", "...", "d"], ["a", "b", "c"])
    assert not Comparison().same(["key 0x00000000000000a1"], ["key 0x00000000000000b2"])
    assert Comparison().same(["a", "  queue        0 commands", "  engine"], ["a", "  idle  nothing", "  engine"])
    assert not Comparison().same(["  queue        0 commands"], ["queue", "  reservation"])
    one, two, three = "1cdd8f01d6514cb0a17e88052252d9a5", "0" * 32, "1" * 32
    comparison = Comparison()
    assert comparison.same([f"serial {one}"], [f"serial {two}"])
    assert comparison.same([f"again {one}"], [f"again {two}"])
    assert not comparison.same([f"again {one}"], [f"again {three}"])
    runner = Runner(["bash", "-c", 'shift; exec "$@"', "-"])
    print("-- two that must fail:")
    once = runner.document("selftest", ["```console", "# echo a", "b", "# x=1", "# echo $x; false", "1", "```", "```sh", "false", "true", "```"])
    assert runner.failed == 2
    assert once[:3] == ["```console", "# echo a", "a"]
    print("-- none that may:")
    runner.failed = 0
    assert runner.document("selftest", once[:7]) == once[:7]
    assert runner.failed == 0


def main():
    parser = argparse.ArgumentParser(description="Runs documents, and compares.")
    parser.add_argument("--selftest", action="store_true", help="test this program itself")
    parser.add_argument("--check", action="store_true", help="run nothing: only tell what can't be run")
    parser.add_argument("--shell", help="a program: '--shell PROGRAM' runs PROGRAM WHO COMMAND... as lab, storage or a host")
    parser.add_argument("--before", help="a command of the lab's before each document")
    parser.add_argument("--write", help="write the documents as they should be below this directory")
    parser.add_argument("documents", nargs="*")
    arguments = parser.parse_args()
    if arguments.selftest:
        selftest()
        return 0
    runner = Runner([arguments.shell])
    for name in arguments.documents:
        with open(name) as file:
            lines = file.read().split("\n")
        try:
            blocks = parse(name, lines)
        except Wrong as wrong:
            runner.tell(False, str(wrong))
            continue
        if arguments.check or all(block.note[:1] == ("not run",) for block in blocks):
            continue
        began = time.monotonic()
        if arguments.before:
            status, found = runner.shell("lab").run(arguments.before)
            runner.tell(status == 0, f"{name}: from a clean state", found)
            runner.shells = {who: shell for who, shell in runner.shells.items() if who == "lab"}
        written = runner.document(name, lines)
        print(f"-- {name}: {time.monotonic() - began:.0f} s", flush=True)
        if arguments.write and written != lines:
            path = os.path.join(arguments.write, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write("\n".join(written))
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
