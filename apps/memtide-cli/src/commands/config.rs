//! `config`: what is wrong with a configuration, what it amounts to, what the presets are.

use std::io::Write;
use std::path::Path;

use memtide::{Error, ErrorKind, Preset};
use serde_json::{Map, Value, json};

use crate::args::{self, Global};
use crate::open;
use crate::report::{self, Outcome};

/// Does what was asked about the configuration.
pub(crate) fn run(global: &Global, config: &args::Config) -> Outcome {
    match config {
        args::Config::Check { file } => check(global, file.as_deref()),
        args::Config::Show => show(global),
        args::Config::Presets => presets(global),
    }
}

fn check(global: &Global, file: Option<&Path>) -> Outcome {
    let file = file.or(global.config.as_deref());
    let wrong = open::check(global, file)?;
    if global.json {
        let violation =
            |one: &memtide::Violation| json!({ "field": one.field, "message": one.message });
        let all: Vec<_> = wrong.iter().map(violation).collect();
        report::print_json(&json!({ "violations": all }))?;
    } else {
        let mut output = report::output();
        for one in &wrong {
            writeln!(output, "{}: {}", one.field, one.message)?;
        }
        output.finish()?;
    }
    let whose = file.map_or("the configuration".to_owned(), |file| file.display().to_string());
    if wrong.is_empty() {
        report::say(format_args!("{whose} is valid"));
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidConfig, open::count(wrong.len(), &whose)).into())
}

fn show(global: &Global) -> Outcome {
    let options = open::config(global, &[])?.effective()?;
    if global.json {
        let options = options.into_iter().map(|(key, value)| (key, plain(&value)));
        return report::print_json(&Value::Object(options.collect()));
    }
    let mut output = report::output();
    output.write_all(toml(&options).as_bytes())?;
    output.finish()
}

/// Options as a configuration file: those outside tables first, as TOML wants it.
fn toml(options: &[(String, String)]) -> String {
    let mut text = String::new();
    let mut open = None;
    let (tables, top): (Vec<_>, Vec<_>) = options.iter().partition(|(key, _)| key.contains('.'));
    for (key, value) in top.into_iter().chain(tables) {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        if open.is_some_and(|open| open != table) || (open.is_none() && !table.is_empty()) {
            let header = match table.split_once('.') {
                Some((group, keyspace)) => format!("{group}.{}", quoted(keyspace)),
                None => table.to_owned(),
            };
            text.push_str(&format!("\n[{header}]\n"));
        }
        open = Some(table);
        let value = match plain(value) {
            Value::String(value) => quoted(&value),
            plain => plain.to_string(),
        };
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

/// A TOML basic string: JSON's spelling, except for one control character that JSON lets stand.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// The value with its type, where its text is exactly what that type prints.
fn plain(value: &str) -> Value {
    if let Some(number) = value.parse::<i64>().ok().filter(|n| n.to_string() == value) {
        return number.into();
    }
    value.parse::<bool>().map_or_else(|_| value.into(), Value::Bool)
}

fn presets(global: &Global) -> Outcome {
    if global.json {
        let preset = |preset: Preset| {
            let values = json!({
                "memtable_type": preset.memtable_type().name(),
                "max_memtable_size": preset.max_memtable_size(),
                "memory_budget": preset.memory_budget(),
                "flush_target": preset.flush_target(),
            });
            (preset.name().to_owned(), values)
        };
        let all: Map<String, Value> = Preset::ALL.into_iter().map(preset).collect();
        return report::print_json(&Value::Object(all));
    }
    let mut table = report::table([
        "preset",
        "memtable_type",
        "max_memtable_size",
        "memory_budget",
        "flush_target",
    ]);
    for preset in Preset::ALL {
        table.add_row([
            preset.name().to_owned(),
            preset.memtable_type().to_string(),
            report::bytes(preset.max_memtable_size()),
            report::bytes(preset.memory_budget()),
            report::bytes(preset.flush_target()),
        ]);
    }
    let mut output = report::output();
    writeln!(output, "{table}")?;
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_as_toml() {
        let options: Vec<(String, String)> = [
            ("data_dir", "a\"b\\c\u{7f}"),
            ("max_memtable_size", "4096"),
            ("enable_background_compaction", "false"),
            ("tree.block_size", "4096"),
            ("keyspace.eu.users.memtable_type", "trie"),
            ("compression", "007"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        let text = toml(&options);
        let read = toml::de::DeTable::parse(&text).expect(&text);
        let value = |path: &[&str]| {
            let (name, tables) = path.split_last().expect("a path");
            let inner = tables.iter().fold(read.get_ref(), |table, name| {
                table.get(*name).and_then(|value| value.get_ref().as_table()).expect(name)
            });
            inner.get(*name).expect(name).get_ref().clone()
        };
        assert_eq!(value(&["data_dir"]).as_str(), Some("a\"b\\c\u{7f}"));
        assert_eq!(
            value(&["max_memtable_size"]).as_integer().map(|n| n.as_str().to_owned()),
            Some("4096".to_owned())
        );
        assert_eq!(value(&["enable_background_compaction"]).as_bool(), Some(false));
        assert_eq!(value(&["compression"]).as_str(), Some("007"));
        assert!(value(&["tree", "block_size"]).is_integer());
        assert_eq!(value(&["keyspace", "eu.users", "memtable_type"]).as_str(), Some("trie"));
    }
}
