//! Sections: which there may be where, and each with its check.
//!
//! What they say is gathered in the [`Loader`]. Nothing is looked up here that another file may say.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;

use super::super::checks::{self, ScheduleDefaults, Shared};
use super::super::fault::Severity;
use super::super::reference;
use super::super::section::Section;
use super::super::source::{Sink, Source};
use super::super::text;
use super::super::written::{MAIN_FILE_SECTIONS, SECTIONS, SECTIONS_TO_COME};
use super::parse::Parsed;
use super::{Includes, Loader, Named};

impl Loader<'_> {
    /// Checks every section but the schedules.
    pub(super) fn sections(
        &mut self,
        index: usize,
        source: &Source,
        documents: &[&Parsed<'_>],
    ) -> (ScheduleDefaults, Includes) {
        let is_main = index == 0;
        let find = |name: &str| {
            documents.iter().find_map(|document| document.table.get(name).map(|value| (document.base, value)))
        };
        let sink = &self.sink;
        let section = |name: &'static str| find(name).and_then(|(base, value)| table(source, sink, base, name, value));
        if is_main {
            let server = section("server");
            self.main.server = Some(checks::server(server.as_ref()));
            self.main.token_teams = server.as_ref().map(checks::token_teams).unwrap_or_default();
            self.main.log = Some(checks::log(section("log").as_ref()));
            self.main.store = Some(checks::store(section("store").as_ref(), &source.name));
            let zookeeper = section("zookeeper");
            self.main.zookeeper = zookeeper.as_ref().map(checks::zookeeper);
            self.main.zookeeper_at = zookeeper.as_ref().map(|section| section.span(&[])).unwrap_or_default();
            if let Some(server) = server.filter(|_| self.are_elsewhere() && find("zookeeper").is_none()) {
                server.error(
                    &["definitions"],
                    "the definitions are in ZooKeeper, and there is no home ensemble",
                    "add a section [zookeeper] with `connect`, or write definitions = \"file\"",
                );
            }
        }
        for document in documents {
            self.unknown_sections(source, document, is_main);
        }
        if is_main && self.are_elsewhere() {
            return (ScheduleDefaults::default(), Vec::new());
        }
        let (sources, shared) = (&self.sources, &mut self.shared);
        if let Some(named) = section("airflow") {
            each_name(&named, (sources, index), shared, &mut self.airflows, checks::airflow);
        }
        if let Some(named) = section("ensemble") {
            let has_home = self.main.zookeeper.is_some() || self.incomplete;
            let check = |section: &Section<'_, '_>, name: &Arc<str>| checks::ensemble(section, name, has_home);
            each_name(&named, (sources, index), shared, &mut self.ensembles, check);
        }
        if let Some(named) = section("team") {
            let check = |section: &Section<'_, '_>, _: &Arc<str>| Arc::new(checks::team(section));
            each_name(&named, (sources, index), shared, &mut self.teams, check);
        }
        if let Some((base, value)) = find("sync") {
            let drafts = tables(source, sink, base, "sync", value).filter_map(|sync| checks::sync(&sync, shared));
            self.syncs.extend(drafts.map(|draft| (index, draft)));
        }
        let own = section("defaults").map(|section| checks::defaults(&section, shared)).unwrap_or_default();
        let defaults = own.over(&self.main_defaults);
        if index == self.first {
            self.main_defaults = defaults.clone();
        }
        let includes = find("include").map(|(base, value)| self.includes(index, source, base, value));
        (defaults, includes.unwrap_or_default())
    }

    fn unknown_sections(&self, source: &Source, document: &Parsed<'_>, is_main: bool) {
        let section =
            Section { source, sink: &self.sink, base: document.base, key: "", table: &document.table, header: 0..0 };
        for (key, value) in &document.table {
            let name = key.get_ref().as_ref();
            let (message, hint) = if let Some((_, what)) = SECTIONS_TO_COME.iter().find(|(known, _)| *known == name) {
                (
                    format!("`{name}` ({what}) is not supported yet by this version of flowkeeper"),
                    "take it out".to_owned(),
                )
            } else if !SECTIONS.contains(&name) && value.get_ref().as_table().is_none() {
                let hint = match reference::sections_with(name).as_slice() {
                    [] => text::did_you_mean(name, &SECTIONS, "known sections"),
                    sections => format!("put it below {}", sections.join(" or ")),
                };
                (format!("unknown key `{name}` outside of a section"), hint)
            } else if !SECTIONS.contains(&name) {
                (format!("unknown section `{name}`"), text::did_you_mean(name, &SECTIONS, "known sections"))
            } else if !is_main && MAIN_FILE_SECTIONS.contains(&name) {
                (
                    format!("`{name}` belongs in the main file"),
                    format!("move it to {}", self.sources.first().map_or("the main file", |main| &main.name)),
                )
            } else if is_main && self.are_elsewhere() && !MAIN_FILE_SECTIONS.contains(&name) {
                (
                    format!("`{name}` stands in the main file, and [server] says that the definitions are in ZooKeeper"),
                    "move it to a file of its own and run `flowkeeper config push FILE`, or write definitions = \"file\""
                        .to_owned(),
                )
            } else {
                continue;
            };
            let span = section.key_span(name);
            self.sink.push(source.fault(span, name.to_owned(), Severity::Error, message, hint));
        }
    }

    /// Checks the schedules of a part.
    pub(super) fn schedules(
        &mut self,
        index: usize,
        source: &Source,
        document: &Parsed<'_>,
        defaults: &ScheduleDefaults,
    ) {
        let Some(value) = document.table.get("schedule").filter(|_| index > 0 || !self.are_elsewhere()) else { return };
        for section in tables(source, &self.sink, document.base, "schedule", value) {
            if let Some(draft) = checks::schedule(&section, defaults, &mut self.shared) {
                self.drafts.push((index, draft));
            }
        }
    }
}

/// The section that a value is, which should be a table.
fn table<'a, 'i>(
    source: &'a Source,
    sink: &'a Sink,
    base: usize,
    key: &'a str,
    value: &'a Spanned<DeValue<'i>>,
) -> Option<Section<'a, 'i>> {
    let span = value.span();
    if let Some(table) = value.get_ref().as_table() {
        return Some(Section { source, sink, base, key, table, header: span });
    }
    let message = format!("`{key}` is a section");
    let hint = format!("write [{key}], and its keys below");
    sink.push(source.fault(span.start + base..span.end + base, key.to_owned(), Severity::Error, message, hint));
    None
}

/// The tables of `[[sync]]` or `[[schedule]]`.
fn tables<'a, 'i>(
    source: &'a Source,
    sink: &'a Sink,
    base: usize,
    key: &'static str,
    value: &'a Spanned<DeValue<'i>>,
) -> impl Iterator<Item = Section<'a, 'i>> {
    let fault = move |span: Range<usize>| {
        sink.push(source.fault(
            span.start + base..span.end + base,
            key.to_owned(),
            Severity::Error,
            format!("{key}s are written as [[{key}]]"),
            format!("put two brackets around the header of each {key}"),
        ));
    };
    let items = value.get_ref().as_array();
    if items.is_none() {
        fault(value.span());
    }
    items.into_iter().flatten().filter_map(move |item| {
        let Some(table) = item.get_ref().as_table() else {
            fault(item.span());
            return None;
        };
        Some(Section { source, sink, base, key, table, header: item.span() })
    })
}

/// Checks each section below `[airflow]`, `[ensemble]` or `[team]`. The first of a name is kept.
fn each_name<T>(
    named: &Section<'_, '_>,
    (sources, index): (&[Rc<Source>], usize),
    shared: &mut Shared,
    known: &mut BTreeMap<Arc<str>, Named<T>>,
    check: impl Fn(&Section<'_, '_>, &Arc<str>) -> T,
) {
    for (name, span, key, value) in names(named) {
        let Some(section) = table(named.source, named.sink, named.base, &key, value) else { continue };
        let name = shared.name(name);
        let checked = check(&section, &name);
        if let Some((_, (file, first))) = known.get(&name) {
            section.error(
                &[],
                format!("[{}] is there twice", section.key),
                format!("the other one is at {}; rename one of them", sources[*file].place(first.start)),
            );
        } else {
            known.insert(name, (checked, (index, span)));
        }
    }
}

/// A named section's name, its place, its dotted key and its value.
type Below<'a, 'i> = (&'a str, Range<usize>, String, &'a Spanned<DeValue<'i>>);

/// The sections below `[airflow]`, `[ensemble]` or `[team]`, those with illegal names left out.
fn names<'a, 'i>(section: &Section<'a, 'i>) -> Vec<Below<'a, 'i>> {
    let table = section.table;
    table
        .iter()
        .filter_map(|(key, value)| {
            let name = key.get_ref().as_ref();
            let (span, dotted) = (section.key_span(name), format!("{}.{name}", section.key));
            let wrong = if value.get_ref().as_table().is_none() {
                let hint = format!("give it a name and put its keys below: [{}.main]", section.key);
                Some((format!("`{name}` stands outside of a named section"), hint))
            } else if !checks::is_name(name) {
                let hint = "use lower-case letters, digits, `-` and `_`, at most 64".to_owned();
                Some((format!("\"{name}\" is not a name for a section"), hint))
            } else {
                None
            };
            if let Some((message, hint)) = wrong {
                section.sink.push(section.source.fault(span, dotted, Severity::Error, message, hint));
                return None;
            }
            Some((name, span, dotted, value))
        })
        .collect()
}
