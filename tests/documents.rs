//! The links of the documents lead somewhere, here and where they are installed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// The documents that administrators read, from the top of the tree.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = files("docs", ".md");
    found.push("README.md".into());
    found
}

/// The files in a folder whose names end so.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<PathBuf> = names
        .filter(|name| name.ends_with(end))
        .map(|name| Path::new(folder).join(name))
        .collect();
    files.sort();
    files
}

/// Where what is installed goes, by the assets of the package.
fn installed() -> BTreeMap<PathBuf, PathBuf> {
    let manifest: toml::Table = read(Path::new("Cargo.toml")).parse().unwrap();
    let assets = &manifest["package"]["metadata"]["deb"]["assets"];
    let mut places = BTreeMap::new();
    for asset in assets.as_array().unwrap() {
        let (source, place) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        let sources = match source.split_once('*') {
            Some((folder, end)) if !source.starts_with("target/") => {
                files(folder.trim_end_matches('/'), end)
            }
            _ => vec![source.into()],
        };
        for source in sources {
            let place = match place.ends_with('/') {
                true => Path::new(place).join(source.file_name().unwrap()),
                false => place.into(),
            };
            places.insert(source, place);
        }
    }
    places
}

/// The text without what is between fences, which is no Markdown.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        if !fenced && !is_fence {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// Where the links of a text lead, but for those to other sites.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let mut links: Vec<String> = prose
        .split("](")
        .skip(1)
        .map(|after| after.split(')').next().unwrap().to_owned())
        .collect();
    links.retain(|link| !link.contains("://"));
    links
}

/// The names by which links know the headings of a text.
fn anchors(text: &str) -> Vec<String> {
    let prose = prose(text);
    prose
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

/// In lower case, spaces as hyphens, without any other punctuation.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .replace(' ', "-")
        .chars()
        .filter(|&c| c.is_alphanumeric() || c == '-' || c == '_')
        .collect()
}

/// The path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// What is wrong with a link of a document.
fn complaint(document: &Path, link: &str, places: &BTreeMap<PathBuf, PathBuf>) -> Option<String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => document.to_owned(),
        _ => plain(&document.parent().unwrap().join(path)),
    };
    if !root().join(&target).is_file() {
        return Some(format!("there is no {}", target.display()));
    }
    if !anchor.is_empty() && !anchors(&read(&target)).iter().any(|found| found == anchor) {
        return Some(format!("{} has no heading #{anchor}", target.display()));
    }
    let from = places.get(document)?;
    let to = plain(&from.parent().unwrap().join(path));
    (!path.is_empty() && places.get(&target) != Some(&to)).then(|| {
        format!(
            "where it is installed, there is no {}: name the file, without a link",
            to.display()
        )
    })
}

#[test]
fn links_lead_somewhere_here_and_where_they_are_installed() {
    let places = installed();
    let mut complaints = Vec::new();
    for document in documents() {
        if !places.contains_key(&document) {
            complaints.push(format!("{}: is not installed", document.display()));
        }
        for link in links(&read(&document)) {
            if let Some(complaint) = complaint(&document, &link, &places) {
                complaints.push(format!("{}: ({link}): {complaint}", document.display()));
            }
        }
    }
    assert!(
        complaints.is_empty(),
        "these links lead nowhere:\n  {}\n",
        complaints.join("\n  ")
    );
}

/// Who reads the README finds all documents.
#[test]
fn the_readme_leads_to_every_document() {
    let linked = links(&read(Path::new("README.md")));
    let is_missing = |document: &PathBuf| !linked.iter().any(|link| Path::new(link) == document);
    let missing: Vec<PathBuf> = files("docs", ".md")
        .into_iter()
        .filter(is_missing)
        .collect();
    assert!(missing.is_empty(), "README.md has no link to {missing:?}");
}

/// The README shows what `docs/first-disk.md` runs.
#[test]
fn the_first_disk_is_the_same_in_both_documents() {
    let block = |path: &str| {
        let text = read(Path::new(path));
        let after = text.split_once("```targetcli\n").unwrap().1;
        after.split_once("```").unwrap().0.to_owned()
    };
    assert_eq!(block("README.md"), block("docs/first-disk.md"));
}

#[test]
fn links_and_headings_are_found() {
    let text = "# A title\n[a](b.md#c), [d\ne](../f)\n```sh\n# no heading [x](y)\n```\n## When it's `slow`?\n[z](https://z)\n";
    assert_eq!(links(text), ["b.md#c", "../f"]);
    assert_eq!(anchors(text), ["a-title", "when-its-slow"]);
    assert_eq!(
        plain(Path::new("docs/../README.md")),
        Path::new("README.md")
    );
}
