//! Definitions that are kept in ZooKeeper: reading, pushing and rolling them back, and the sets that were
//! in force.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::access::Caller;
use super::extract::{Body, Name, Parameters, page_limit};
use super::problem::{Problem, ProblemKind};
use crate::config::{Document, is_document_name};
use crate::definitions::desk::{self, Definitions, Push, PushError, Pushed};
use crate::definitions::history;
use crate::store::Leadership;
use crate::store::model::{DefinitionsVersion, Page};

/// The longest set that is taken, as JSON.
pub(super) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The longest words that go with a set, in characters: they are in every list of the history, in the audit, and in
/// the znode.
const MESSAGE_MAX_CHARS: usize = 10_000;
const AUTHOR_MAX_CHARS: usize = 500;
const PUSH_MAX_CHARS: usize = 200;

/// How many versions a page has by itself.
const PAGE: u32 = 50;

/// The definitions that are in ZooKeeper now
///
/// Needs the role `admin`: the text of definitions may show how to log in.
#[utoipa::path(get, path = "/api/v1/config/definitions", tag = "config", responses(
    (status = OK, body = Definitions),
    (status = CONFLICT, body = Problem, content_type = "application/problem+json", description = "They come from files"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn read(State(api): State<Api>) -> Result<Json<Definitions>, Problem> {
    match api.definitions.read().await? {
        Some((bundle, version)) => Ok(Json(Definitions::new(bundle, version))),
        None => Err(Problem::new(ProblemKind::NotFound, "failed to read the definitions: there are none in ZooKeeper")
            .hint("write some with `flowkeeper config push FILE`")),
    }
}

/// A whole set of definitions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PushBody {
    /// What it says. Names are paths below one directory.
    documents: Vec<Document>,
    /// The version that it was made from. Without it the set is taken only over nothing.
    base: Option<String>,
    /// Take the place of whatever is there.
    #[serde(default)]
    force: bool,
    /// Why, for the history and the audit.
    message: Option<String>,
    /// Who, `user@host`; what the token says stands before it.
    author: Option<String>,
    /// Tells this push from any other; repeated with the same text, it is done once.
    push: Option<String>,
}

/// Put a set of definitions in force on all members
#[utoipa::path(put, path = "/api/v1/config/definitions", tag = "config", request_body = PushBody, responses(
    (status = OK, body = Pushed),
    (status = CONFLICT, body = Problem, content_type = "application/problem+json", description = "Another set than the base is in force, or definitions come from files"),
    (status = UNPROCESSABLE_ENTITY, body = Problem, content_type = "application/problem+json", description = "The set has faults"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn push(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<PushBody>,
) -> Result<Json<Pushed>, Problem> {
    let PushBody { documents, base, force, message, author, push } = body;
    if let Some(problem) =
        wrong_names(&documents).or_else(|| too_long(message.as_deref(), author.as_deref(), push.as_deref()))
    {
        return Err(problem);
    }
    let leadership = leadership(&api, "push the definitions")?;
    let seen = Seen { base, force };
    let push = draw(&caller, documents, seen, message, author.as_deref(), push);
    let audit = caller.order(push.message.clone()).audit("config push", String::new(), None);
    Ok(Json(api.definitions.push(&leadership, push, audit).await?))
}

/// Which version to go back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    /// A number of the history, or a version or its beginning.
    version: String,
    /// The version that is to be given up. Without it the set is taken only over nothing.
    base: Option<String>,
    /// Take the place of whatever is there.
    #[serde(default)]
    force: bool,
    /// Why, for the history and the audit.
    message: Option<String>,
    /// Who, `user@host`; what the token says stands before it.
    author: Option<String>,
    /// Tells this request from any other; repeated with the same text, it is done once.
    push: Option<String>,
}

/// Put a version of the history in force again
#[utoipa::path(post, path = "/api/v1/config/rollback", tag = "config", request_body = RollbackBody, responses(
    (status = OK, body = Pushed),
    (status = CONFLICT, body = Problem, content_type = "application/problem+json", description = "Another set than the base is in force, or definitions come from files"),
    (status = UNPROCESSABLE_ENTITY, body = Problem, content_type = "application/problem+json", description = "This version of flowkeeper finds faults in it"),
    (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn roll_back(
    State(api): State<Api>,
    caller: Caller,
    Body(body): Body<RollbackBody>,
) -> Result<Json<Pushed>, Problem> {
    let RollbackBody { version, base, force, message, author, push } = body;
    if let Some(problem) = too_long(message.as_deref(), author.as_deref(), push.as_deref()) {
        return Err(problem);
    }
    let leadership = leadership(&api, "roll back the definitions")?;
    let message = message.unwrap_or_else(|| format!("back to version {version}"));
    let push = draw(&caller, Vec::new(), Seen { base, force }, Some(message.clone()), author.as_deref(), push);
    let audit = caller.order(Some(message)).audit("config rollback", String::new(), None);
    Ok(Json(api.definitions.roll_back(&leadership, &version, push, audit).await?))
}

/// What who pushes knows to be there.
struct Seen {
    base: Option<String>,
    force: bool,
}

/// What is handed in.
fn draw(
    caller: &Caller,
    documents: Vec<Document>,
    Seen { base, force }: Seen,
    message: Option<String>,
    author: Option<&str>,
    push: Option<String>,
) -> Push {
    Push {
        documents,
        base,
        force,
        author: desk::author(&caller.actor, author),
        message,
        push: push.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string()),
    }
}

fn leadership(api: &Api, what: &str) -> Result<Leadership, Problem> {
    api.operations.lead().ok_or_else(|| {
        Problem::new(ProblemKind::Unavailable, format!("failed to {what}: this member does not lead"))
            .hint("ask again in a moment, or ask the member that leads")
    })
}

/// Names that would be no files when somebody pulls them.
fn wrong_names(documents: &[Document]) -> Option<Problem> {
    let mut names = std::collections::HashSet::new();
    let wrong = documents.iter().find(|document| !is_document_name(&document.name) || !names.insert(&document.name))?;
    let detail =
        format!("failed to push the definitions: \"{}\" is no name for a document, or there twice", wrong.name);
    Some(
        Problem::new(ProblemKind::InvalidRequest, detail)
            .hint("names are paths below one directory, such as schedules/a.toml"),
    )
}

/// Words that nobody needs so long.
fn too_long(message: Option<&str>, author: Option<&str>, push: Option<&str>) -> Option<Problem> {
    let words =
        [("message", message, MESSAGE_MAX_CHARS), ("author", author, AUTHOR_MAX_CHARS), ("push", push, PUSH_MAX_CHARS)];
    let is_long = |text: Option<&str>, most| text.is_some_and(|text| text.chars().count() > most);
    let (name, _, most) = words.into_iter().find(|(_, text, most)| is_long(*text, *most))?;
    let detail = format!("failed to take the definitions: `{name}` has more than {most} characters");
    Some(Problem::new(ProblemKind::InvalidRequest, detail).hint("say it shorter"))
}

/// What of the history to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    /// How many versions.
    limit: Option<u32>,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// The sets of definitions that were in force, newest first
#[utoipa::path(get, path = "/api/v1/config/history", tag = "config", params(HistoryQuery), responses(
    (status = OK, body = Page<DefinitionsVersion>), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(api): State<Api>,
    Parameters(query): Parameters<HistoryQuery>,
) -> Result<Json<Page<DefinitionsVersion>>, Problem> {
    let limit = page_limit(query.limit, PAGE)?;
    Ok(Json(api.ledger.definitions(limit, query.cursor.as_deref()).await?))
}

/// A set that was in force, with its text.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct DefinitionsText {
    #[serde(flatten)]
    #[schema(inline)]
    version: DefinitionsVersion,
    /// What it says; of files, without what may be a secret.
    documents: Vec<Document>,
}

/// A set of definitions that was in force, by number, version or the beginning of one
///
/// Needs the role `admin`, as reading the definitions does.
#[utoipa::path(get, path = "/api/v1/config/history/{version}", tag = "config", params(("version" = String, Path)), responses(
    (status = OK, body = DefinitionsText), (status = "4XX", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn one(State(api): State<Api>, Name(which): Name) -> Result<Json<DefinitionsText>, Problem> {
    let found = api.ledger.definitions_of(&which).await?;
    let (version, text) = found.ok_or(PushError::NoVersion(which))?;
    let documents = history::documents(&version, &text)?;
    Ok(Json(DefinitionsText { version, documents }))
}

impl From<PushError> for Problem {
    fn from(error: PushError) -> Self {
        let kind = match &error {
            PushError::FromFiles | PushError::AnotherHome | PushError::Shadow | PushError::Conflict(_) => {
                ProblemKind::Conflict
            }

            PushError::Away => ProblemKind::Unavailable,
            PushError::Unknown(_) => ProblemKind::Timeout,
            PushError::Empty | PushError::Faults(_) | PushError::Refused(_) | PushError::NotWhole(_) => {
                ProblemKind::Unprocessable
            }
            PushError::TooLarge(_) => ProblemKind::BodyTooLarge,
            PushError::NoVersion(_) => ProblemKind::NotFound,
            PushError::Store(_) => ProblemKind::Internal,
        };
        let hint = error.hint();
        let detail = format!("failed to {error}");
        match error {
            PushError::Store(error) => error.into(),
            PushError::Faults(faults) => Self::new(kind, detail).hint(hint.unwrap_or_default()).faults(faults.faults),
            _ => Self::new(kind, detail).hint(hint.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_a_set_is_short() {
        let words = |length: usize| Some("ä".repeat(length));
        for (message, author, push, right) in [
            (None, None, None, true),
            (words(10_000), words(500), words(200), true),
            (words(10_001), None, None, false),
            (None, words(501), None, false),
            (None, None, words(201), false),
        ] {
            assert_eq!(too_long(message.as_deref(), author.as_deref(), push.as_deref()).is_none(), right);
        }
    }

    #[test]
    fn documents_have_names_of_files() {
        let set = |names: &[&str]| -> Vec<Document> {
            names.iter().map(|name| Document { name: (*name).into(), text: String::new() }).collect()
        };
        for (names, right) in [
            (&["config"][..], true),
            (&["d.toml", "schedules/a.toml"], true),
            (&[], true),
            (&["d.toml", "d.toml"], false),
            (&["../d.toml"], false),
            (&["/etc/passwd"], false),
            (&["a//b"], false),
            (&["a/./b"], false),
            (&["a\\b\n"], false),
            (&[""], false),
        ] {
            assert_eq!(wrong_names(&set(names)).is_none(), right, "{names:?}");
        }
    }
}
