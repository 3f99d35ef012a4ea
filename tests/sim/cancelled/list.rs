//! Which public futures there are, by the library's source: one that nobody drops here is noticed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where public futures are not looked for: what is not built on the connection, and what has no `async`.
const ELSEWHERE: &[&str] = &["blocking", "verbs", "transport", "sync", "service"];

/// What the simulation cannot have, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("ExposedDmaBuf::grant", "the simulation has no dma-bufs"),
    ("ExposedDmaBuf::into_file", "the simulation has no dma-bufs"),
];

/// Every future that the source makes public must be among `covered`, or left out for a reason; answers those.
pub(super) fn check(covered: &BTreeSet<&str>) -> Result<Vec<String>, String> {
    let mut found = BTreeSet::new();
    look_into(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let left_out: BTreeSet<_> = LEFT_OUT.iter().map(|(name, _)| (*name).to_owned()).collect();
    let covered: BTreeSet<_> = covered.iter().map(|name| (*name).to_owned()).collect();
    let known: BTreeSet<_> = covered.union(&left_out).cloned().collect();
    let missing: Vec<_> = found.difference(&known).cloned().collect();
    let gone: Vec<_> = known.difference(&found).cloned().collect();
    if !missing.is_empty() || !gone.is_empty() {
        let (missing, gone) = (missing.join(", "), gone.join(", "));
        return Err(format!("  futures that are not dropped by any case: {missing}; that are not there: {gone}"));
    }
    Ok(LEFT_OUT.iter().map(|(name, why)| format!("{name} ({why})")).collect())
}

fn look_into(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("the source is there").map(|entry| entry.expect("readable")) {
        let (path, name) = (entry.path(), entry.file_name().into_string().expect("UTF-8"));
        if path.is_dir() && !ELSEWHERE.contains(&name.as_str()) && name != "tests" {
            look_into(&path, found);
        } else if name.ends_with(".rs") {
            look_at(&fs::read_to_string(&path).expect("readable"), found);
        }
    }
}

/// Public functions that are `async` or answer a future, by the type whose they are, and public types that are futures.
fn look_at(source: &str, found: &mut BTreeSet<String>) {
    let mut of = String::new();
    let lines: Vec<_> = source.lines().collect();
    let public: BTreeSet<_> = lines.iter().filter_map(|line| name_behind(line, "pub struct ")).collect();
    for (place, line) in lines.iter().enumerate() {
        if let Some(what) = line.strip_prefix("impl") {
            let (of_trait, of_type) = header(what);
            let is_future = ["Future", "IntoFuture"].contains(&of_trait);
            let is_io = of_trait.starts_with("Async") && public.contains(of_type);
            if is_future && public.contains(of_type) {
                found.insert(of_type.to_owned());
            } else if is_io {
                found.insert(format!("{of_type} as {of_trait}"));
            }
            of_type.clone_into(&mut of);
        }
        let answers_future = |_: &&str| {
            // What it answers may stand in a later line.
            let answers = lines[place..].iter().find(|line| line.contains("-> ") || line.ends_with('{'));
            answers.is_some_and(|line| line.contains("-> impl Future") || line.contains("-> impl IntoFuture"))
        };
        let method =
            name_behind(line, "    pub async fn ").or_else(|| name_behind(line, "    pub fn ").filter(answers_future));
        let function =
            name_behind(line, "pub async fn ").or_else(|| name_behind(line, "pub fn ").filter(answers_future));
        found.extend(method.map(|method| format!("{of}::{method}")));
        found.extend(function.map(str::to_owned));
    }
}

fn name_behind<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(start)?;
    rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next()
}

/// Trait, if any, and type of what stands behind `impl`.
fn header(text: &str) -> (&str, &str) {
    let mut rest = text;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.find(|letter| {
            depth += i32::from(letter == '<') - i32::from(letter == '>');
            depth == 0
        });
        rest = &rest[end.map_or(0, |end| end + 1)..];
    }
    let word = |text: &'_ str| {
        let text = text.trim_start();
        text.len() - text.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_').len()
    };
    let first = rest.trim_start();
    match first.split_once(" for ") {
        Some((of_trait, of_type)) => (&of_trait[..word(of_trait)], &of_type[..word(of_type)]),
        None => ("", &first[..word(first)]),
    }
}
