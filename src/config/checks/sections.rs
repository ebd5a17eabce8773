//! `[server]` and `[log]`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use super::super::model::{DefinitionsSource, Log, LogFormat, LogLevel, Pushed, Role, Server, Token};
use super::super::section::Section;
use super::super::written;

/// Where the API listens by itself.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);

/// `[server]`; `None` where the file has none.
pub(crate) fn server(section: Option<&Section<'_, '_>>) -> Server {
    let Some(section) = section else {
        return Server {
            listen: DEFAULT_LISTEN,
            advertise: None,
            definitions: DefinitionsSource::File,
            pushed: Pushed::default(),
            tokens: Vec::new(),
        };
    };
    let written: written::Server = section.read();
    let listen = written.listen.as_deref().map_or(DEFAULT_LISTEN, |written| listen(section, written));
    let tokens = tokens(section, written.token.unwrap_or_default());
    if !listen.ip().is_loopback() && !section.has("token") {
        section.error(
            &["listen"],
            format!("{listen} can be reached from other hosts, and nothing says who may call"),
            "add a [[server.token]], or listen on 127.0.0.1",
        );
    }
    let advertise = written.advertise.map(|url| section.base_url(&["advertise"], &url));
    let definitions = written.definitions.map_or(DefinitionsSource::File, |choice| choice.0);
    let pushed = written.pushed.map_or_else(Pushed::default, |written| pushed(section, written));
    Server { listen, advertise, definitions, pushed, tokens }
}

/// What pushed definitions may have this member do.
fn pushed(section: &Section<'_, '_>, written: written::Pushed) -> Pushed {
    let default = Pushed::default();
    let commands = written.commands.unwrap_or(default.commands);
    for (index, command) in commands.iter().enumerate() {
        if command.first().is_none_or(String::is_empty) {
            let at = ["pushed", "commands", &index.to_string()];
            section.error(&at, "no program is named", "write [\"program\", \"argument\"]");
        }
    }
    let env = written.env.unwrap_or(default.env);
    section.globs(&["pushed", "env"], &env, false);
    let files = written.files.unwrap_or(default.files);
    section.globs(&["pushed", "files"], &files, true);
    for (index, pattern) in files.iter().enumerate() {
        if pattern.split('/').any(|part| part == "..") {
            let at = ["pushed", "files", &index.to_string()];
            section.error(&at, "a path with `..` is never read for what was pushed", "write the path from `/` on");
        }
    }
    Pushed { commands, env, files }
}

fn listen(section: &Section<'_, '_>, written: &str) -> SocketAddr {
    let hint = "write an address and a port, such as \"127.0.0.1:8787\" or \"[::1]:8787\"";
    let numeric = written.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(written).parse().unwrap_or_else(|_| {
        let message = match written.parse::<IpAddr>() {
            Ok(_) => "the port is missing".to_owned(),
            Err(_) => format!("\"{written}\" is not an address to listen on"),
        };
        section.error(&["listen"], message, hint);
        DEFAULT_LISTEN
    })
}

fn tokens(section: &Section<'_, '_>, written: Vec<written::Token>) -> Vec<Token> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut tokens = Vec::new();
    for (index, token) in written.into_iter().enumerate() {
        let at = index.to_string();
        let name = section.required(&["token", &at, "name"], token.name, "name who calls with it, for the audit log");
        let value =
            section.required(&["token", &at, "value"], token.value, "write value = { env = \"NAME\" }, for example");
        let Some(name) = name else { continue };
        if name.is_empty()
            || name.len() > 64
            || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
        {
            section.error(
                &["token", &at, "name"],
                format!("\"{name}\" is not a name for a token"),
                "use letters, digits, `.`, `_`, `-` and `@`, at most 64",
            );
        }
        if let Some(first) = names.insert(name.clone(), index) {
            let first = section.span(&["token", &first.to_string(), "name"]);
            section.error(
                &["token", &at, "name"],
                format!("two tokens are named \"{name}\""),
                format!("the other one is at {}; rename one of them", section.source.place(first.start)),
            );
        }
        let Some(value) = value else { continue };
        let role = token.role.map_or(Role::Read, |role| role.0);
        let team = token.team.map(|team| bound_to(section, &at, &team, role));
        tokens.push(Token { name, value: section.secret(&["token", &at, "value"], value), role, team });
    }
    tokens
}

/// The team that a token is bound to. Whether there is one is known when all files have been read, and
/// changes with them.
fn bound_to(section: &Section<'_, '_>, at: &str, team: &str, role: Role) -> Arc<str> {
    if !super::is_name(team) {
        section.error(
            &["token", at, "team"],
            format!("\"{team}\" is not a name for a team"),
            "write the NAME of a [team.NAME]",
        );
    }
    match role {
        Role::Admin => section.error(
            &["token", at, "team"],
            "a token with the role `admin` changes what all teams go by, and cannot be bound to one",
            "write role = \"operate\", or take `team` out",
        ),
        Role::Read => section.warning(
            &["token", at, "team"],
            "a token with the role `read` acts on nothing, so `team` does not limit it",
            "write role = \"operate\", or take `team` out",
        ),
        Role::Operate => {}
    }
    team.into()
}

/// The teams that tokens name: which token, and where.
pub(crate) fn token_teams(section: &Section<'_, '_>) -> Vec<(usize, String, Range<usize>)> {
    let tokens = section.value(&["token"]).and_then(|tokens| tokens.get_ref().as_array());
    let team = |index: usize| {
        let at = index.to_string();
        let at = ["token", at.as_str(), "team"];
        Some((index, section.value(&at)?.get_ref().as_str()?.to_owned(), section.span(&at)))
    };
    (0..tokens.map_or(0, |tokens| tokens.len())).filter_map(team).collect()
}

/// `[log]`.
pub(crate) fn log(section: Option<&Section<'_, '_>>) -> Log {
    let written = section.map_or_else(written::Log::default, Section::read);
    Log {
        format: written.format.map_or(LogFormat::Text, |choice| choice.0),
        level: written.level.map_or(LogLevel::Info, |choice| choice.0),
    }
}
