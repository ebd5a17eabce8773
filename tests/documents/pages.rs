//! What README.md and docs/ tell people to type, scrape and open is there. What it does is told elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::{root, sources};

/// Commands that have commands of their own.
const GROUPS: [&str; 3] = ["config", "runs", "sync"];

#[test]
fn links_lead_somewhere() {
    for (page, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().expect("a folder").join(path) };
            assert!(target.exists(), "{} links to {link}", page.display());
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&target).expect("a page");
                let found = headings.lines().filter(|line| line.starts_with('#')).any(|line| anchor_of(line) == anchor);
                assert!(found, "{} links to {link}: there is no such heading", page.display());
            }
        }
    }
}

#[test]
fn commands_and_their_options_are_known() {
    let mut helps = BTreeMap::new();
    let mut seen = 0;
    for (page, text) in pages() {
        for words in code(&text).iter().filter_map(|code| command(code)) {
            let place = || format!("{}: flowkeeper {}", page.display(), words.join(" "));
            let group = GROUPS.contains(&words[0]).then(|| words.get(1).filter(|word| is_name(word))).flatten();
            let name: Vec<&str> = words.iter().take(1 + usize::from(group.is_some())).copied().collect();
            let help = helps.entry(name.join(" ")).or_insert_with(|| help(&name));
            let help = help.as_ref().unwrap_or_else(|| panic!("{}: no such command", place()));
            for option in words.iter().take_while(|word| **word != "--").filter(|word| word.starts_with('-')) {
                let option = option.split('=').next().unwrap_or_default().trim_end_matches(['`', ',', ']']);
                assert!(has_option(help, option), "{}: no such option", place());
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen} options were found in the pages");
}

#[test]
fn metrics_are_written() {
    let source = all_source();
    let mut seen = 0;
    for (page, text) in pages() {
        for rest in text.split("`flowkeeper_").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            // Ids of runs, names of DAGs and of connections begin alike.
            let is_dag = root().join(format!("dags/flowkeeper_{name}.py")).exists();
            if !is_dag
                && !name.starts_with('_')
                && !name.ends_with('_')
                && !matches!(name.as_str(), "default" | "conn_id")
            {
                assert!(source.contains(&format!("\"flowkeeper_{name}\"")), "{}: flowkeeper_{name}", page.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen} metrics were found in the pages");
}

#[test]
fn paths_of_the_api_are_served() {
    let source = all_source();
    let routes: Vec<String> =
        source.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next()).map(without_names).collect();
    let mut seen = 0;
    for (page, text) in pages() {
        // Airflow 2 has an `api/v1` as well.
        for rest in text.split("/api/v1/").skip(1).filter(|rest| !rest.starts_with("health`")) {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/{}_-".contains(c))).unwrap_or(rest.len());
            let path = without_names(&format!("/api/v1/{}", &rest[..end]));
            assert!(routes.contains(&path), "{}: {path}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} paths were found in the pages");
}

/// The pages that people read.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("the docs").map(|entry| entry.expect("an entry").path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).expect("a page"));
    pages.chain([root().join("README.md")]).map(read).collect()
}

/// Everything that a page shows as code: spans, and the lines of its blocks.
fn code(page: &str) -> Vec<&str> {
    let mut code = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            code.extend(part.lines().map(str::trim));
        } else {
            code.extend(part.lines().flat_map(|line| line.split('`').skip(1).step_by(2)));
        }
    }
    code
}

/// The words of a command line of flowkeeper, without itself, its global options and comments.
fn command(code: &str) -> Option<Vec<&str>> {
    let rest = code.split_whitespace().skip_while(|word| word.rsplit('/').next() != Some("flowkeeper"));
    let mut words = rest.skip(1).take_while(|word| !matches!(*word, "#" | "|" | "&&" | ">")).peekable();
    while words.next_if(|word| matches!(*word, "-c" | "-o" | "--timezone" | "--color")).is_some() {
        words.next();
    }
    let words: Vec<&str> = words.collect();
    let is_command = code.contains("flowkeeper ") && words.first().is_some_and(|word| is_name(word));
    is_command.then_some(words)
}

fn is_name(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_lowercase())
}

/// What a command says of itself; `None` if there is none of that name.
fn help(name: &[&str]) -> Option<String> {
    let said = Command::new(env!("CARGO_BIN_EXE_flowkeeper")).args(name).arg("--help").output().expect("it runs");
    said.status.success().then(|| String::from_utf8(said.stdout).expect("a text"))
}

fn has_option(help: &str, option: &str) -> bool {
    help.split(|c: char| c.is_whitespace() || ",=".contains(c)).any(|word| word == option)
}

/// How a heading is named in a link.
fn anchor_of(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A path with nothing between braces, whatever its parts are called.
fn without_names(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/").trim_end_matches('/').to_owned()
}

fn all_source() -> String {
    sources().into_iter().map(|(_, text)| text).collect()
}
