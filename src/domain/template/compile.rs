//! From text to something that can be evaluated.
//!
//! All templates share one set of filters and limits. Texts that occur more than once, such as a
//! `conf` that many schedules have alike, are compiled once per [`Compiler`] and shared.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::context::{RenderContext, VARIABLES};
use super::{ConfTemplate, Expression, Node, RenderError, filters, methods, names};

/// The steps that one evaluation may take; a few hundred are usual. It also bounds the memory, to
/// about 64 bytes a step.
const FUEL: u64 = 200_000;

/// The name of the only template in an environment of its own.
const TEMPLATE_NAME: &str = "conf";

/// Filters, tests, limits and strictness, shared by all templates.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_unknown_method_callback(methods::call);
    filters::add_to(&mut environment);
    environment
});

/// What is wrong with the text of a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl TemplateError {
    pub(super) fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { message: message.into(), hint }
    }

    fn from_engine(error: &minijinja::Error) -> Self {
        let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Self::new(detail, None)
    }
}

/// A compiled template or expression.
pub(super) struct Compiled {
    source: Box<str>,
    code: Code,
    /// What it reads, with attributes: `znode`, `znode.json`, `schedule.name`.
    variables: Box<[Box<str>]>,
}

enum Code {
    /// One expression; its value keeps its type.
    Expression(minijinja::Expression<'static, 'static>),
    /// Text with templates in it, in an environment of its own. The engine ties a template to the
    /// lifetime of its text; a clone of the environment owns it, and shares all the rest.
    Text(Box<Environment<'static>>),
}

impl Compiled {
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn uses(&self, variable: &str) -> bool {
        let covers = |read: &str, asked: &str| {
            asked.strip_prefix(read).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.variables.iter().any(|read| covers(read, variable) || covers(variable, read))
    }

    pub(super) fn evaluate(&self, context: &RenderContext<'_>) -> Result<Value, RenderError> {
        let variables = context.variables(&|name| self.uses(name));
        self.evaluate_on(variables).map_err(|error| RenderError::from_engine(&error, &self.source))
    }

    /// The value with these variables. The error may tell what they hold.
    pub(super) fn evaluate_on(&self, variables: Value) -> Result<Value, minijinja::Error> {
        match &self.code {
            Code::Expression(expression) => expression.eval(variables),
            Code::Text(environment) => {
                environment.get_template(TEMPLATE_NAME).and_then(|template| template.render(variables)).map(Value::from)
            }
        }
    }

    /// The value as JSON text.
    pub(super) fn render(&self, context: &RenderContext<'_>) -> Result<String, RenderError> {
        let value = self.evaluate(context)?;
        if value.is_undefined() {
            return Err(RenderError::undefined(&self.source));
        }
        serde_json::to_string(&value)
            .map_err(|error| RenderError::new(format!("`{}` has no JSON form: {error}", self.source.trim())))
    }
}

impl PartialEq for Compiled {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

/// Compiles templates, each text once.
#[derive(Default)]
pub struct Compiler {
    expressions: HashMap<Box<str>, Arc<Compiled>>,
    strings: HashMap<Box<str>, Arc<Compiled>>,
    confs: HashMap<String, ConfTemplate>,
}

impl Compiler {
    /// Compiles an expression, written without `{{ }}`.
    pub fn expression(&mut self, source: &str) -> Result<Expression, TemplateError> {
        if let Some(known) = self.expressions.get(source) {
            return Ok(Expression(Arc::clone(known)));
        }
        if source.trim_start().starts_with("{{") {
            return Err(TemplateError::new(
                "an expression stands without braces",
                Some(format!("write \"{}\"", source.trim().trim_start_matches('{').trim_end_matches('}').trim())),
            ));
        }
        let compiled = Arc::new(compile_expression(source)?);
        self.expressions.insert(source.into(), Arc::clone(&compiled));
        Ok(Expression(compiled))
    }

    /// Compiles a `conf`; all faults at once, each with the path of its string.
    pub fn conf(&mut self, conf: &serde_json::Map<String, Json>) -> Result<ConfTemplate, ConfFaults> {
        let key = Json::Object(conf.clone()).to_string();
        if let Some(known) = self.confs.get(&key) {
            return Ok(known.clone());
        }
        let mut faults = Vec::new();
        let node = self.table(conf, &mut Vec::new(), &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let template = ConfTemplate(Arc::new(node));
        self.confs.insert(key, template.clone());
        Ok(template)
    }

    fn table(
        &mut self,
        table: &serde_json::Map<String, Json>,
        path: &mut Vec<String>,
        faults: &mut ConfFaults,
    ) -> Node {
        let entries: Vec<(Box<str>, Node)> = table
            .iter()
            .map(|(key, value)| {
                path.push(key.clone());
                let node = self.node(value, path, faults);
                path.pop();
                (Json::from(key.as_str()).to_string().into(), node)
            })
            .collect();
        let literal = |(key, node): &(Box<str>, Node)| match node {
            Node::Literal(text) => Some(format!("{key}:{text}")),
            _ => None,
        };
        match entries.iter().map(literal).collect::<Option<Vec<_>>>() {
            Some(literals) => Node::Literal(format!("{{{}}}", literals.join(",")).into()),
            None => Node::Table(entries.into()),
        }
    }

    fn node(&mut self, value: &Json, path: &mut Vec<String>, faults: &mut ConfFaults) -> Node {
        match value {
            Json::String(text) if is_template(text) => match self.string(text) {
                Ok(compiled) => Node::Template(compiled),
                Err(error) => {
                    faults.push((path.clone(), error));
                    Node::Literal("null".into())
                }
            },
            Json::Array(items) => {
                let nodes: Vec<Node> = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| {
                        path.push(index.to_string());
                        let node = self.node(item, path, faults);
                        path.pop();
                        node
                    })
                    .collect();
                if nodes.iter().all(|node| matches!(node, Node::Literal(_))) {
                    Node::Literal(value.to_string().into())
                } else {
                    Node::List(nodes.into())
                }
            }
            Json::Object(table) => self.table(table, path, faults),
            _ => Node::Literal(value.to_string().into()),
        }
    }

    fn string(&mut self, source: &str) -> Result<Arc<Compiled>, TemplateError> {
        if let Some(known) = self.strings.get(source) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(compile_string(source, &VARIABLES)?);
        self.strings.insert(source.into(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

/// The faults of a `conf`, each with the keys and indices that lead to its string.
pub type ConfFaults = Vec<(Vec<String>, TemplateError)>;

/// Whether the engine would do something with this text.
fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|delimiter| text.contains(delimiter))
}

fn compile_expression(source: &str) -> Result<Compiled, TemplateError> {
    let expression =
        ENVIRONMENT.compile_expression_owned(source.to_owned()).map_err(|error| TemplateError::from_engine(&error))?;
    finish(source, &expression.undeclared_variables(true), Code::Expression(expression), &VARIABLES)
}

/// A string that is exactly one `{{ expression }}` keeps its type; any other becomes text. It reads only
/// `known` variables.
pub(super) fn compile_string(source: &str, known: &[&str]) -> Result<Compiled, TemplateError> {
    // `{{ a }} and {{ b }}` begins and ends like one, but its inside is no expression.
    if let Some(inside) = source.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"))
        && let Ok(expression) = ENVIRONMENT.compile_expression_owned(without_trim_marks(inside).to_owned())
    {
        return finish(source, &expression.undeclared_variables(true), Code::Expression(expression), known);
    }
    let mut environment = Box::new(ENVIRONMENT.clone());
    environment
        .add_template_owned(TEMPLATE_NAME, source.to_owned())
        .map_err(|error| TemplateError::from_engine(&error))?;
    let variables = environment
        .get_template(TEMPLATE_NAME)
        .map_err(|error| TemplateError::from_engine(&error))?
        .undeclared_variables(true);
    finish(source, &variables, Code::Text(environment), known)
}

/// Takes the white-space marks of `{{- x -}}` away: there is no white space around it to trim.
fn without_trim_marks(inside: &str) -> &str {
    let inside = inside.strip_prefix('-').unwrap_or(inside);
    inside.strip_suffix('-').unwrap_or(inside)
}

/// Checks the names that the engine itself looks up only when it evaluates.
fn finish(source: &str, variables: &HashSet<String>, code: Code, known: &[&str]) -> Result<Compiled, TemplateError> {
    let mut read: Vec<Box<str>> = Vec::with_capacity(variables.len());
    for variable in variables {
        let root = variable.split('.').next().unwrap_or(variable);
        if known.contains(&root) {
            read.push(variable.as_str().into());
        } else if !ENVIRONMENT.globals().any(|(name, _)| name == root) {
            return Err(TemplateError::new(
                format!("`{root}` is not a variable of templates"),
                Some(suggest(root, known).unwrap_or_else(|| format!("there are {}", known.join(", ")))),
            ));
        }
    }
    names::check(source, matches!(code, Code::Expression(_)) && !source.starts_with("{{"), &ENVIRONMENT)?;
    read.sort_unstable();
    Ok(Compiled { source: source.into(), code, variables: read.into() })
}

/// `did you mean …`, when one of the known names is near.
pub(super) fn suggest(name: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}
