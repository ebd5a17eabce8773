//! The methods of texts and tables that people know from Jinja in Python, where the engine itself
//! has filters and tests only.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};

/// Every method that a value may have; `cycle` and `changed` are those of `loop`.
pub(super) const METHODS: [&str; 12] = [
    "changed",
    "cycle",
    "endswith",
    "get",
    "items",
    "keys",
    "lower",
    "replace",
    "split",
    "startswith",
    "strip",
    "upper",
];

/// Calls a method that the engine does not know.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "startswith" => return from_args::<(&str,)>(args).map(|(start,)| Value::from(text.starts_with(start))),
            "endswith" => return from_args::<(&str,)>(args).map(|(end,)| Value::from(text.ends_with(end))),
            "strip" if args.is_empty() => return Ok(Value::from(text.trim())),
            "strip" => {
                return from_args::<(&str,)>(args).map(|(what,)| Value::from(text.trim_matches(|c| what.contains(c))));
            }
            "lower" | "upper" | "replace" | "split" => return filter(state, method, value, args),
            _ => {}
        }
    }
    if value.kind() == minijinja::value::ValueKind::Map {
        match method {
            "get" => {
                let (key, default): (Value, Option<Value>) = from_args(args)?;
                let found = value.get_item(&key)?;
                return Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found });
            }
            "items" => return filter(state, "items", value, args),
            "keys" => return filter(state, "list", value, args),
            _ => {}
        }
    }
    Err(Error::from(ErrorKind::UnknownMethod))
}

/// The filter of the same name does the same.
fn filter(state: &mut State<'_, '_>, name: &str, value: &Value, args: &[Value]) -> Result<Value, Error> {
    let args: Vec<Value> = std::iter::once(value.clone()).chain(args.iter().cloned()).collect();
    state.apply_filter(name, &args)
}
