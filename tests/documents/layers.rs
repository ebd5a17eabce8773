//! `docs/architecture.md` says which folder may use which, and what only one of them may name. The code is
//! held to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{root, sources};

/// Crates that one folder alone names.
const NAMED_BY_ONE: [(&str, &str); 2] = [("zookeeper_client", "zookeeper"), ("sqlx", "store")];

/// What pure decisions have no use for.
const NOT_IN_DOMAIN: [&str; 7] =
    ["tokio::", "reqwest::", "std::net", "std::process", "SystemTime", "Instant::now", "Timestamp::now"];

#[test]
fn dependencies_point_one_way() {
    let layers = layers();
    let mut wrong = Vec::new();
    for (module, path, text) in code() {
        let own = layers.get(&module).unwrap_or_else(|| panic!("docs/architecture.md gives `{module}` no layer"));
        for used in uses(&text) {
            let theirs = layers.get(used).unwrap_or_else(|| panic!("{} uses `crate::{used}`", path.display()));
            if used != module && theirs >= own {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the layers in docs/architecture.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_layer_names_what_there_is() {
    let there: BTreeSet<String> = code().into_iter().map(|(module, ..)| module).collect();
    let named: BTreeSet<String> = layers().into_keys().collect();
    assert_eq!(named, there);
}

#[test]
fn only_one_folder_names_the_client_of_zookeeper_and_the_database() {
    for (krate, folder) in NAMED_BY_ONE {
        let path_of_crate = format!("{krate}::");
        for (module, path, text) in code().into_iter().filter(|(module, ..)| module != folder) {
            assert!(!text.contains(&path_of_crate), "{} of `{module}` names {krate}", path.display());
        }
    }
}

#[test]
fn the_domain_waits_for_nothing_and_reads_no_clock() {
    for (_, path, text) in code().into_iter().filter(|(module, ..)| module == "domain") {
        for word in NOT_IN_DOMAIN {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

/// The layer of each module, the lowest first, as the document lists them.
fn layers() -> BTreeMap<String, usize> {
    let document = fs::read_to_string(root().join("docs/architecture.md")).expect("the document");
    let (_, after) = document.split_once("```layers\n").expect("a block of layers");
    let (block, _) = after.split_once("```").expect("the end of the block");
    let layers = block.lines().enumerate();
    layers.flat_map(|(layer, line)| line.split_whitespace().map(move |module| (module.to_owned(), layer))).collect()
}

/// Every source file without comments and tests: the module of `src/` that it belongs to, its path, its text.
fn code() -> Vec<(String, PathBuf, String)> {
    let is_test = |path: &Path| path.iter().any(|part| part == "tests" || part == "tests.rs");
    let files = sources().into_iter().filter(|(path, _)| !is_test(path) && path != Path::new("lib.rs"));
    let code = files.map(|(path, text)| {
        let module = path.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        let (text, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (module, path, lines.join("\n"))
    });
    code.collect()
}

/// The modules that a text names after `crate::`, or after the crate's name as `main` has to.
fn uses(text: &str) -> BTreeSet<&str> {
    let paths = ["crate::", "flowkeeper::"].into_iter().flat_map(|of| text.split(of).skip(1));
    let name = |rest: &'_ str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    paths.map(|rest| &rest[..name(rest)]).collect()
}
