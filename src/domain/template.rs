//! Templates: how the `conf` of a DAG run is made from what came due, and how `when` decides.
//!
//! The language is that of Jinja (minijinja). Everything is compiled when a configuration is read
//! and evaluated on plain values, so a mistake shows when the file is checked and evaluation needs
//! no I/O. A template is outside data: it has a limit of work (fuel), an undefined variable is an
//! error and never an empty text, and no input makes it panic.

mod compile;
mod context;
mod default_conf;
mod ensemble;
mod filters;
mod methods;
mod names;
mod value;

use std::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

pub use compile::{Compiler, ConfFaults, TemplateError};
pub use context::{RenderContext, VARIABLES, ZnodeFacts};
pub use default_conf::{DEFAULT_CONF_TEXT_BYTES, DEFAULT_CONF_TOTAL_BYTES};
pub use ensemble::EnsembleVariable;
pub use value::{VALUE_VARIABLES, ValueContext, ValueTemplate};

use compile::Compiled;

/// A condition, compiled: an expression that is true or false as Jinja has it.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct Expression(Arc<Compiled>);

impl Expression {
    /// Compiles `source`, an expression without `{{ }}`.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        Compiler::default().expression(source)
    }

    /// Whether the condition holds.
    pub fn evaluate(&self, context: &RenderContext<'_>) -> Result<bool, RenderError> {
        let value = self.0.evaluate(context)?;
        if value.is_undefined() { Err(RenderError::undefined(self.0.source())) } else { Ok(value.is_true()) }
    }

    /// Whether it reads `variable`, `previous` or `znode.json` for example.
    pub fn uses(&self, variable: &str) -> bool {
        self.0.uses(variable)
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        self.0.source()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source()).finish()
    }
}

/// A `conf`, compiled: a JSON object whose strings may be templates.
///
/// Cheap to clone. Parts without templates are kept as the JSON text that is sent.
#[derive(Clone, PartialEq)]
pub struct ConfTemplate(Arc<Node>);

impl ConfTemplate {
    /// Compiles a JSON object; all faults at once, each with the path of its string.
    pub fn parse(conf: &serde_json::Map<String, serde_json::Value>) -> Result<Self, ConfFaults> {
        Compiler::default().conf(conf)
    }

    /// Renders the `conf` to send: always a JSON object.
    pub fn render(&self, context: &RenderContext<'_>) -> Result<Box<RawValue>, RenderError> {
        let mut json = String::new();
        self.0.write(context, &mut json)?;
        RawValue::from_string(json).map_err(|error| RenderError::new(format!("the conf is not JSON: {error}")))
    }

    /// Whether it reads `variable`, `previous` or `znode.json` for example.
    pub fn uses(&self, variable: &str) -> bool {
        self.0.any_template(&mut |template| template.uses(variable))
    }
}

impl fmt::Debug for ConfTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConfTemplate").field(&self.0).finish()
    }
}

/// A part of a `conf`.
#[derive(Debug, PartialEq)]
enum Node {
    /// JSON text without a template in it.
    Literal(Box<str>),
    /// A string that is one.
    Template(Arc<Compiled>),
    /// An array with at least one template below it.
    List(Box<[Node]>),
    /// An object with at least one template below it; keys are JSON strings with their quotes.
    Table(Box<[(Box<str>, Node)]>),
}

impl Node {
    fn write(&self, context: &RenderContext<'_>, json: &mut String) -> Result<(), RenderError> {
        match self {
            Self::Literal(text) => json.push_str(text),
            Self::Template(template) => json.push_str(&template.render(context)?),
            Self::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    json.push(if index == 0 { '[' } else { ',' });
                    node.write(context, json)?;
                }
                json.push(']');
            }
            Self::Table(entries) => {
                for (index, (key, node)) in entries.iter().enumerate() {
                    json.push(if index == 0 { '{' } else { ',' });
                    json.push_str(key);
                    json.push(':');
                    node.write(context, json)?;
                }
                json.push('}');
            }
        }
        Ok(())
    }

    fn any_template(&self, test: &mut dyn FnMut(&Compiled) -> bool) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Template(template) => test(template),
            Self::List(nodes) => nodes.iter().any(|node| node.any_template(test)),
            Self::Table(entries) => entries.iter().any(|(_, node)| node.any_template(test)),
        }
    }
}

/// Why a template could not be evaluated; fits "failed to render the conf: …" and becomes the
/// reason of the rejected run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    message: String,
}

impl RenderError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    fn undefined(source: &str) -> Self {
        Self::new(format!("`{}` is undefined", source.trim()))
    }

    /// Says what went wrong, in which template, without the text of the engine's own frame.
    fn from_engine(error: &minijinja::Error, source: &str) -> Self {
        let kind = error.kind();
        let detail = error.detail().map_or_else(|| kind.to_string(), str::to_owned);
        let what = match kind {
            minijinja::ErrorKind::UndefinedError => format!("a value is undefined ({detail})"),
            minijinja::ErrorKind::OutOfFuel => "it takes too long (more steps than a template may take)".to_owned(),
            _ => detail,
        };
        Self::new(format!("`{}`: {what}", source.trim()))
    }
}

#[cfg(test)]
mod tests;
