//! Rules about pages: what is cited and linked has to exist, down to the heading.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, Violations};

/// Anchors of the headings of a page, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for line in prose(text) {
        let level = line.chars().take_while(|c| *c == '#').count();
        let Some(title) = line.get(level..).and_then(|rest| rest.strip_prefix(' ')) else { continue };
        if !(1..=6).contains(&level) {
            continue;
        }
        let slug = slug(title);
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    anchors
}

fn slug(title: &str) -> String {
    let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || "_- ".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Lines outside of fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A page that does not exist, or an anchor that it does not have.
fn dead(
    page: &str,
    anchor: Option<&str>,
    sources: &[Source],
    exists: &dyn Fn(&str) -> bool,
) -> Option<String> {
    let source = sources.iter().find(|source| source.path == page);
    match (source, anchor) {
        (Some(source), Some(anchor)) if source.is_markdown() && !anchors(&source.text).contains(anchor) => {
            Some(format!("{page} has no heading #{anchor}"))
        }
        (None, _) if !exists(page) => Some(format!("{page} does not exist")),
        _ => None,
    }
}

/// Pages that code and docs cite as `docs/….md` or `docs/….md#anchor`; those of other repositories, which stand
/// behind a colon, are theirs.
pub fn dead_citations(sources: &[Source], exists: &dyn Fn(&str) -> bool) -> Violations {
    let mut found = Violations::new();
    for source in sources {
        for (at, line) in source.lines() {
            for (start, _) in line.match_indices("docs/") {
                let before = line[..start].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || "_-./:".contains(c)) {
                    continue;
                }
                let Some((page, anchor)) = citation(&line[start..]) else { continue };
                let dead = dead(page, anchor, sources, exists);
                found.extend(dead.map(|why| format!("{}:{at}: {why}", source.path)));
            }
        }
    }
    found
}

/// Splits a text that begins with `docs/` into page and anchor, if it names one page.
fn citation(text: &str) -> Option<(&str, Option<&str>)> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let end = text.find(|c| !is_path(c)).unwrap_or(text.len());
    let page_end = text[..end].find(".md")? + ".md".len();
    let (page, rest) = text.split_at(page_end);
    let anchor = rest.strip_prefix('#').map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"_-".contains(c)).unwrap_or(rest.len());
        &rest[..end]
    });
    Some((page, anchor.filter(|anchor| !anchor.is_empty())))
}

/// Links of pages, `[…](target)`, relative to the page.
pub fn dead_links(sources: &[Source], exists: &dyn Fn(&str) -> bool) -> Violations {
    let mut found = Violations::new();
    for source in sources.iter().filter(|source| source.is_markdown()) {
        for line in prose(&source.text) {
            // Every second part between back-quotes is code.
            let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
            for part in text.split("](").skip(1) {
                let target = part.split([')', ' ']).next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                let (page, anchor) =
                    target.split_once('#').map_or((target, None), |(page, a)| (page, Some(a)));
                let page = if page.is_empty() { source.path.clone() } else { resolve(&source.path, page) };
                let dead = dead(&page, anchor, sources, exists);
                found.extend(dead.map(|why| format!("{}: {why}", source.path)));
            }
        }
    }
    found
}

fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// Folder of the pages, apart from their names, so that planted ones are no citations.
const FOLDER: &str = "docs";

/// Goal: dead pages and anchors are seen, live ones are not. Method: a page with headings, cited and linked.
#[test]
fn rules_about_pages_see_violations() {
    let page = "# Batch `v1`: form\n## Same\n## Same\n```\n# no heading\n```\n## 鍵 の配布\n";
    let found: Vec<String> = anchors(page).into_iter().collect();
    assert_eq!(found, ["batch-v1-form", "same", "same-1", "鍵-の配布"]);
    let exists = |path: &str| path == "LICENSE";
    let cite = |text: &str| {
        dead_citations(&[planted(&format!("{FOLDER}/b.md"), page), planted("a.rs", text)], &exists)
    };
    for live in ["b.md", "b.md#same-1", "b.md#鍵-の配布", "spec/*.md", "b"] {
        assert!(cite(&format!("// `{FOLDER}/{live}`.")).is_empty(), "{live}");
    }
    assert!(cite(&format!("// a/b:{FOLDER}/gone.md")).is_empty());
    for gone in ["gone.md", "b.md#gone", "b.md#no-heading"] {
        assert_eq!(cite(&format!("// `{FOLDER}/{gone}`.")).len(), 1, "{gone}");
    }
    let link = |text: &str| {
        dead_links(
            &[planted(&format!("{FOLDER}/b.md"), page), planted(&format!("{FOLDER}/d/c.md"), text)],
            &exists,
        )
    };
    assert!(link("[a](../b.md#same) [b](../../LICENSE) [c](https://x.jp/y.md) `[d](gone.md)`\n").is_empty());
    assert_eq!(link("[a](../b.md#gone) [b](b.md) [c](#gone)\n").len(), 3);
}

fn planted(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}
