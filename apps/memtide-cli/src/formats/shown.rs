//! Keys and values in reports: their lengths, or all of them if it was asked for.

use serde_json::{Value, json};

use super::{escape, hex};

/// Appends them to a line: escaped between quotes, or as `(12 B)`.
pub(crate) fn push(bytes: &[u8], show: bool, line: &mut String) {
    if show {
        line.push('"');
        escape::escape(bytes, line);
        line.push('"');
    } else {
        line.push_str(&format!("({} B)", bytes.len()));
    }
}

/// The same for machines.
pub(crate) fn document(bytes: &[u8], show: bool) -> Value {
    if !show {
        return json!({ "len": bytes.len() });
    }
    let mut digits = String::new();
    hex::encode(bytes, &mut digits);
    json!({ "len": bytes.len(), "hex": digits })
}
