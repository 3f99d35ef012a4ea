//! The documents of the repository: that their links lead somewhere. Their examples are compiled as documentation tests (`src/lib.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Each document that a person may be sent to.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in [".", "docs", "benches", "soft-roce-setup", "examples"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Where a document's links lead, images included.
fn links(text: &str) -> Vec<String> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => Some(dest_url.into_string()),
            _ => None,
        })
        .collect()
}

/// The documents that a text names without a link: `docs/….md`.
fn mentions(text: &str) -> Vec<String> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
        .filter_map(|event| match event {
            Event::Code(code) if code.starts_with("docs/") && code.ends_with(".md") => Some(code.into_string()),
            _ => None,
        })
        .collect()
}

/// The names by which a document's headings are linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let name: String = heading
                    .take()
                    .expect("a heading has begun")
                    .to_lowercase()
                    .chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect();
                found.insert(name);
            }
            _ => {}
        }
    }
    found
}

/// What is wrong with a link in `document`, if something is.
fn complaint(document: &Path, link: &str) -> Option<String> {
    // What only rustdoc resolves, and denies to be wrong.
    if link.starts_with("crate::") {
        return None;
    }
    if let Some(rest) = link.strip_prefix("https://") {
        let named = rest.split('/').next().is_some_and(|host| host.contains('.'));
        return (!named).then(|| "no host".to_owned());
    }
    if link.contains("://") {
        return Some("neither a file nor https".to_owned());
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let target = match file {
        "" => document.to_owned(),
        file => document.parent().expect("a file is in a folder").join(file),
    };
    if !target.exists() {
        return Some(format!("there is no {}", target.display()));
    }
    let anchor = anchor?;
    let text = fs::read_to_string(&target).expect("what an anchor is in is text");
    (!anchors(&text).contains(anchor)).then(|| format!("{} has no heading #{anchor}", target.display()))
}

#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    let mut complaints = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a document is text");
        for link in links(&text) {
            checked += 1;
            if let Some(complaint) = complaint(&document, &link) {
                complaints.push(format!("{}: {link}: {complaint}", document.display()));
            }
        }
        for mention in mentions(&text) {
            if !Path::new(env!("CARGO_MANIFEST_DIR")).join(&mention).exists() {
                complaints.push(format!("{}: there is no {mention}", document.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn wrong_links_are_noticed() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    for wrong in ["docs/nothing.md", "docs/memory.md#nothing", "#nothing", "http://zcmi.example", "https://nothing"] {
        assert!(complaint(&readme, wrong).is_some(), "{wrong}");
    }
    assert_eq!(mentions("see `docs/nothing.md`, and `docs/`"), ["docs/nothing.md"]);
    for right in ["docs/memory.md", "docs/memory.md#taking-it-back", "#licence", "https://docs.rs/zcmi"] {
        assert_eq!(complaint(&readme, right), None, "{right}");
    }
}

/// Every page of the guide is in its table of contents, and its examples are compiled.
#[test]
fn the_guide_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contents = links(&fs::read_to_string(root.join("docs/README.md")).expect("the guide has contents"));
    let compiled = fs::read_to_string(root.join("src/lib.rs")).expect("the crate's root");
    for document in documents().iter().filter(|document| document.parent() == Some(&root.join("docs"))) {
        let name = document.file_name().expect("a file").to_str().expect("a name in UTF-8");
        if name == "README.md" {
            continue;
        }
        assert!(contents.iter().any(|link| link == name), "docs/README.md does not lead to {name}");
        let text = fs::read_to_string(document).expect("a document is text");
        if text.contains("```rust") {
            assert!(
                compiled.contains(&format!("../docs/{name}\")")),
                "src/lib.rs does not have the examples of {name} compiled"
            );
        }
    }
}
