//! Keeps the repository tidy: what a reviewer would have to look for in every file, looked for by a test.
//!
//! Every rule is a function over sources, so that it is tried here on a planted violation and on the repository.
//! Words that a rule looks for are put together from two halves, so that this file does not violate it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a panic is the report")]

#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/versions.rs"]
mod versions;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pages::{dead_citations, dead_links};
use versions::unversioned;

/// A text file: its path from the top of the repository, with `/`, and what it holds.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// Whether it lies in a folder `tests`.
    fn is_in_tests(&self) -> bool {
        self.path.split('/').rev().skip(1).any(|folder| folder == "tests")
    }

    /// Lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }
}

type Violations = Vec<String>;

/// Lines of the longest Rust file.
const LINES_MAX: usize = 400;

/// Folders at the top; tool folders begin with a dot.
const TOP_FOLDERS: [&str; 7] = ["edge", "cloud", "proto", "image", "provisioning", "chaos", "docs"];

fn long_files(sources: &[Source]) -> Violations {
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.filter(|source| source.text.lines().count() > LINES_MAX)
        .map(|source| format!("{}: {} lines; split it", source.path, source.text.lines().count()))
        .collect()
}

fn without_opening(sources: &[Source]) -> Violations {
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.filter(|source| !source.text.starts_with("//!"))
        .map(|source| format!("{}: does not open with `//!`: say what it owns", source.path))
        .collect()
}

fn unfinished(sources: &[Source]) -> Violations {
    let macros = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("#[ig", "nore"),
    ];
    let words = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let mut found = Violations::new();
    for source in sources {
        for (at, line) in source.lines() {
            let macros = macros.iter().filter(|text| source.is_rust() && line.contains(**text));
            let words = words.iter().filter(|word| has_word(line, word));
            found.extend(macros.chain(words).map(|text| format!("{}:{at}: {text}", source.path)));
        }
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

fn machine_paths(sources: &[Source]) -> Violations {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/tmp/ba", "sh_jobs")];
    let mut found = Violations::new();
    for source in sources {
        for (at, line) in source.lines() {
            let hits = paths.iter().filter(|path| stands_alone(line, path));
            found.extend(
                hits.map(|path| format!("{}:{at}: names a path of one machine, {path}", source.path)),
            );
        }
    }
    found
}

/// Whether a path begins a word, so that `a/root/b` is none of the machine's.
fn stands_alone(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_-./}".contains(c))
    })
}

fn foreign_folders(sources: &[Source]) -> Violations {
    let tops: BTreeSet<&str> =
        sources.iter().filter_map(|source| Some(source.path.split_once('/')?.0)).collect();
    let foreign = tops.into_iter().filter(|top| !top.starts_with('.') && !TOP_FOLDERS.contains(top));
    foreign.map(|top| format!("{top}/: no folder of the top; they are {}", TOP_FOLDERS.join(", "))).collect()
}

/// One file names types of sled, so that it can be replaced. Comments and paths may speak of it.
fn sled_users(sources: &[Source]) -> Violations {
    let item = concat!("sl", "ed::");
    let import = concat!("use sl", "ed");
    let names = |source: &&Source| {
        source.is_rust()
            && source.lines().any(|(_, line)| {
                let code = line.split("//").next().unwrap_or_default();
                has_path(code, item) || code.trim_start().starts_with(import)
            })
    };
    let users: Vec<&str> = sources.iter().filter(names).map(|source| source.path.as_str()).collect();
    if users.len() > 1 {
        vec![format!("types of sled are named in {}", users.join(", "))]
    } else {
        Vec::new()
    }
}

fn has_path(code: &str, path: &str) -> bool {
    code.match_indices(path)
        .any(|(at, _)| code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

fn sleeping_tests(sources: &[Source]) -> Violations {
    let calls = [concat!("thread::sl", "eep"), concat!("time::sl", "eep")];
    let mut found = Violations::new();
    for source in sources.iter().filter(|source| source.is_rust() && source.is_in_tests()) {
        let mut before = "";
        for (at, line) in source.lines() {
            let paced = [before, line].iter().any(|line| line.contains("// paced:"));
            if !paced && calls.iter().any(|call| line.contains(call)) {
                found.push(format!(
                    "{}:{at}: sleeps; wait for the thing itself, or say `// paced:` why",
                    source.path
                ));
            }
            before = line;
        }
    }
    found
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Paths of all files that are tracked, or that could be; without git all files but those of tools.
fn listed(top: &Path) -> Vec<String> {
    let git = Command::new("git").current_dir(top).args(["ls-files", "-coz", "--exclude-standard"]).output();
    if let Some(output) = git.ok().filter(|output| output.status.success()) {
        let names = String::from_utf8(output.stdout).unwrap();
        return names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    let (mut folders, mut files) = (vec![top.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if path.is_file() {
                files.push(name);
            }
        }
    }
    files
}

/// All text files but the lock file, which cargo writes.
fn repository() -> Vec<Source> {
    let top = top();
    let names = listed(&top).into_iter().filter(|name| !name.ends_with("Cargo.lock"));
    // What is no text, or is deleted and not yet committed, is passed over.
    names
        .filter_map(|path| Some(Source { text: std::fs::read_to_string(top.join(&path)).ok()?, path }))
        .collect()
}

/// Goal: no rule is broken. Method: every rule over every file.
#[test]
fn the_repository_is_tidy() {
    let sources = repository();
    assert!(sources.iter().any(|source| source.path == "chaos/tests/tidy.rs"), "files are not found");
    let top = top();
    let exists = |path: &str| top.join(path).exists();
    let rules = [
        long_files(&sources),
        without_opening(&sources),
        unfinished(&sources),
        machine_paths(&sources),
        foreign_folders(&sources),
        sled_users(&sources),
        sleeping_tests(&sources),
        dead_citations(&sources, &exists),
        dead_links(&sources, &exists),
        unversioned(&sources),
    ];
    let violations = rules.concat();
    assert!(violations.is_empty(), "{} violation(s):\n{}", violations.len(), violations.join("\n"));
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// Goal: the rules about one file can fail and do not fail on what is right. Method: a sound and a broken file each.
#[test]
fn rules_about_files_see_violations() {
    let sound =
        [source("edge/src/a.rs", "//! A.\nfn todo() {}\n"), source("image/a.md", "/tmp/x a/root/b\n")];
    let rules: [fn(&[Source]) -> Violations; 7] =
        [long_files, without_opening, unfinished, machine_paths, foreign_folders, sled_users, sleeping_tests];
    for (at, rule) in rules.iter().enumerate() {
        assert_eq!(rule(&sound), Violations::new(), "rule {at}");
    }
    assert_eq!(long_files(&[source("a.rs", &"x\n".repeat(LINES_MAX + 1))]).len(), 1);
    assert_eq!(without_opening(&[source("a.rs", "use std::io;\n//! Late.\n")]).len(), 1);
    for planted in [
        concat!("to", "do!()"),
        concat!("unimple", "mented!()"),
        concat!("db", "g!(1)"),
        concat!("#[ig", "nore]"),
        concat!("// TO", "DO: later"),
        concat!("FIX", "ME"),
    ] {
        assert_eq!(unfinished(&[source("a.rs", planted)]).len(), 1, "{planted}");
    }
    for planted in
        [concat!("cd /wo", "rk/main"), concat!("`/ro", "ot/.cargo`"), concat!("/tmp/ba", "sh_jobs.0")]
    {
        assert_eq!(machine_paths(&[source("Makefile", planted)]).len(), 1, "{planted}");
    }
    assert_eq!(foreign_folders(&[source("scripts/a.sh", ""), source(".ci/run", "")]).len(), 1);
}

/// Goal: the rules about sled and sleeping see a violation and its exception. Method: planted sources.
#[test]
fn rules_about_calls_see_violations() {
    let open = concat!("let db = sl", "ed::open(path);");
    let both = [source("a.rs", open), source("b.rs", concat!("use sl", "ed::Tree;"))];
    assert_eq!(sled_users(&both).len(), 1);
    let spoken =
        [source("a.rs", open), source("b.rs", concat!("// Like sl", "ed::Tree.\nuse un", "sled::X;"))];
    assert!(sled_users(&spoken).is_empty());
    let sleep = concat!("std::thread::sl", "eep(pause);");
    assert_eq!(sleeping_tests(&[source("edge/tests/a.rs", sleep)]).len(), 1);
    let waits = concat!("tokio::time::sl", "eep(pause).await;");
    assert_eq!(sleeping_tests(&[source("edge/src/tests/a.rs", waits)]).len(), 1);
    let paced = format!("// paced: the moment of the kill\n{sleep}");
    let allowed = [source("edge/tests/a.rs", &paced), source("edge/src/a.rs", sleep)];
    assert!(sleeping_tests(&allowed).is_empty());
}

/// Goal: a kind that no table names, one that no code reads, and one that is written too early are found. Method: a
/// table with the last two, and code with two more.
#[test]
fn rules_about_versions_see_violations() {
    let rows =
        |rows: &str| source("docs/spec/versions.md", &format!("| in | number | what | r | w |\n{rows}"));
    let code = source("proto/src/object.rs", "            1 => Some(Self::Batch),\n");
    let right = rows("| object record | 1 | batch | 0.1 | 0.1 |\n");
    assert_eq!(unversioned(&[code, right]), Violations::new());
    let code = source("proto/src/courier.rs", "        7 => Record::New,\n        8 => Record::Newer(x),\n");
    let wrong =
        rows("| courier record | 8 | newer | 0.2 | 0.2 |\n| wire frame | 9 | gone | 0.1 | not yet |\n");
    assert_eq!(unversioned(&[code, wrong]).len(), 3);
}
