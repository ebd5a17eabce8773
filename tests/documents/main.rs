//! What is written for people is true: the layers that the architecture names, and what the pages tell
//! people to type, scrape and open.

mod layers;
mod pages;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file: its path below `src/`, and its text.
fn sources() -> Vec<(PathBuf, String)> {
    let source = root().join("src");
    let (mut folders, mut sources) = (vec![source.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                sources.push((path.strip_prefix(&source).expect("below src").to_owned(), text));
            }
        }
    }
    assert!(sources.len() > 100, "{} files", sources.len());
    sources
}
