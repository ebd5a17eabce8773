//! The template that makes the value of an entry of Airflow from what a znode holds.
//!
//! What it works on may be a secret, and its own text may have one in it, so its errors tell the kind of
//! mistake and nothing else.

use std::fmt;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::Value as Json;

use super::compile::{Compiled, compile_string};
use super::{RenderError, TemplateError, ZnodeFacts};

/// Every variable that such a template may read.
pub const VALUE_VARIABLES: [&str; 3] = ["key", "value", "znode"];

/// A template for values, compiled. Cheap to clone.
#[derive(Clone)]
pub struct ValueTemplate(Arc<Compiled>);

/// What such a template is evaluated on.
#[derive(Clone, Copy)]
pub struct ValueContext<'a> {
    /// The key without its prefix.
    pub key: &'a str,
    /// The member of the JSON object; `None` for a znode, whose text stands for it.
    pub value: Option<&'a Json>,
    /// The znode.
    pub znode: &'a Arc<ZnodeFacts>,
}

impl ValueTemplate {
    /// Compiles a string that may have `{{ … }}` in it.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        compile_string(source, &VALUE_VARIABLES).map(|compiled| Self(Arc::new(compiled)))
    }

    /// The value. A string that is exactly one expression keeps its type.
    pub fn render(&self, context: &ValueContext<'_>) -> Result<Json, RenderError> {
        let text = || context.znode.text().map_or_else(|| Value::from(()), Value::from);
        let variables = Value::from_pairs([
            ("key", Value::from(context.key)),
            ("value", context.value.map_or_else(text, |value| Value::from(Serde(value)))),
            ("znode", context.znode.to_value()),
        ]);
        let failed = |what: &str| RenderError::new(format!("the template `value` cannot be evaluated: {what}"));
        let value = self.0.evaluate_on(variables).map_err(|error| failed(&error.kind().to_string()))?;
        if value.is_undefined() {
            return Err(failed("it is undefined"));
        }
        serde_json::to_value(&value).map_err(|_| failed("it has no JSON form"))
    }
}

impl fmt::Debug for ValueTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its text may have a secret in it.
        f.write_str("ValueTemplate(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(data: &[u8]) -> Arc<ZnodeFacts> {
        Arc::new(ZnodeFacts {
            path: "/config/app/url".to_owned(),
            event: None,
            data: Some(data.to_vec()),
            version: 3,
            czxid: 1,
            mzxid: 2,
            recreated: false,
            coalesced: 0,
            truncated: false,
        })
    }

    fn render(source: &str, data: &[u8], value: Option<&Json>) -> Result<Json, RenderError> {
        let template = ValueTemplate::parse(source).expect("a template");
        template.render(&ValueContext { key: "url", value, znode: &facts(data) })
    }

    #[test]
    fn a_value_is_made_of_the_znode_or_of_the_member() {
        let member = json!({"slots": 3});
        for (source, data, value, expected) in [
            ("{{ value }}", "x", None, json!("x")),
            ("{{ znode.text | trim }}", " x\n", None, json!("x")),
            ("{{ znode.json.port }}", r#"{"port": 1}"#, None, json!(1)),
            ("{{ key }}={{ value }} (version {{ znode.version }})", "x", None, json!("url=x (version 3)")),
            ("{{ value.slots + 1 }}", "", Some(&member), json!(4)),
            ("{{ value }}", "", Some(&member), member.clone()),
        ] {
            assert_eq!(render(source, data.as_bytes(), value).expect("a value"), expected, "{source}");
        }
    }

    #[test]
    fn a_mistake_tells_nothing_of_the_data() {
        for source in
            ["{{ znode.json.a }}", "{{ value.s3cret }}", "{{ value | int }}", "{{ nosuch.a if false else value + 1 }}"]
        {
            let Ok(template) = ValueTemplate::parse(source) else { continue };
            let facts = facts(b"s3cret");
            let told = template.render(&ValueContext { key: "k", value: None, znode: &facts });
            let Err(error) = told else { continue };
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        assert!(ValueTemplate::parse("{{ schedule.name }}").is_err());
        assert!(ValueTemplate::parse("{{ vlaue }}").expect_err("a slip").hint.expect("a hint").contains("`value`"));
    }
}
