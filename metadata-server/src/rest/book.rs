//! The OpenAPI document as Markdown: docs/rest.md, and the page at `/docs`.

use std::fmt::Write as _;

use dfs_types::ErrorCode;
use serde_json::Value;

const INTRODUCTION: &str = include_str!("introduction.md");
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Writes the whole document. Deterministic: the same program gives the same text.
pub fn markdown(document: &Value) -> String {
    let mut out = String::from(INTRODUCTION);
    let operations = operations(document);
    out.push_str("\n## All calls\n\n| call | what it does |\n|---|---|\n");
    for at in &operations {
        line(
            &mut out,
            format_args!("| [{}](#{}) | {} |", at.title(), at.anchor(), text(&at.operation["summary"])),
        );
    }
    for tag in list(&document["tags"]) {
        line(&mut out, format_args!("\n## {}\n\n{}", text(&tag["name"]), text(&tag["description"])));
        for at in operations.iter().filter(|at| at.operation["tags"][0] == tag["name"]) {
            at.write(&mut out, document);
        }
    }
    out.push_str("\n## Shapes\n\nFields that are not marked as optional are always there.\n");
    if let Some(schemas) = document["components"]["schemas"].as_object() {
        for (name, schema) in schemas {
            shape(&mut out, name, schema);
        }
    }
    out
}

struct At<'a> {
    method: &'a str,
    path: &'a str,
    operation: &'a Value,
}

fn operations(document: &Value) -> Vec<At<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            METHODS.iter().filter_map(move |method| Some(At { method, path, operation: item.get(method)? }))
        })
        .collect()
}

/// Writing to a String cannot fail.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// For a cell of a table.
fn cell(value: &Value) -> String {
    text(value).replace('\n', " ").replace('|', "\\|")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl At<'_> {
    fn title(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    /// As the heading's anchor is made by those who show Markdown.
    fn anchor(&self) -> String {
        super::html::anchor(&self.title())
    }

    fn write(&self, out: &mut String, document: &Value) {
        let operation = self.operation;
        line(out, format_args!("\n### {}\n\n{}.", self.title(), text(&operation["summary"])));
        let about = text(&operation["description"]);
        if !about.is_empty() {
            line(out, format_args!("{about}"));
        }
        line(out, format_args!("\n```\n{}\n```", self.example(document)));
        let parameters = list(&operation["parameters"]);
        if !parameters.is_empty() {
            out.push_str("\n| parameter | where | type | |\n|---|---|---|---|\n");
            for parameter in parameters {
                let optional = if parameter["required"] == true { "" } else { ", optional" };
                let kind = format!("{}{optional}", kind(&parameter["schema"]));
                let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
                line(
                    out,
                    format_args!("| `{name}` | {place} | {kind} | {} |", cell(&parameter["description"])),
                );
            }
        }
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        if !body.is_null() {
            line(out, format_args!("\nBody: {}.", kind(body)));
        }
        let mut errors = Vec::new();
        out.push('\n');
        for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
            let content = answer["content"].as_object().and_then(|content| content.iter().next());
            match content {
                Some((media, _)) if media == super::problems::MEDIA_TYPE => {
                    errors.push(format!("{status}{}", codes(text(&answer["description"]))));
                }
                content => {
                    let body = content.map_or(String::new(), |(media, content)| match media.as_str() {
                        "application/json" => format!(" {}", kind(&content["schema"])),
                        other => format!(" `{other}`"),
                    });
                    line(out, format_args!("- {status}:{body} {}", text(&answer["description"])));
                }
            }
        }
        line(out, format_args!("- Errors: {}", errors.join("; ")));
    }

    fn example(&self, document: &Value) -> String {
        let open = list(&self.operation["security"])
            .first()
            .is_some_and(|one| one.as_object().is_some_and(|o| o.is_empty()));
        let mut command = String::from("curl --cacert ca.pem");
        if !open {
            command.push_str(" -H \"authorization: Bearer $(cat admin.key)\"");
        }
        let body = &self.operation["requestBody"]["content"]["application/json"]["schema"];
        if !matches!(self.method, "get") && (self.method != "post" || body.is_null()) {
            let _ = write!(command, " -X {}", self.method.to_uppercase());
        }
        if let Some(name) = body["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
            let example = &document["components"]["schemas"][name]["example"];
            let _ = write!(command, " -H 'content-type: application/json' -d '{example}'");
        }
        let (mut path, mut query) = (self.path.to_owned(), Vec::new());
        for parameter in list(&self.operation["parameters"]) {
            let name = text(&parameter["name"]);
            let example = parameter["example"].as_str();
            match text(&parameter["in"]) {
                "path" => {
                    path = path.replace(&format!("{{{name}}}"), example.unwrap_or(&name.to_uppercase()));
                }
                "query" if example.is_some() => query.push(format!("{name}={}", example.unwrap_or_default())),
                _ => {}
            }
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        let _ = write!(command, " 'https://localhost:8080{path}{query}'");
        command
    }
}

/// The error codes that a description begins its sentences with.
fn codes(description: &str) -> String {
    let words = description.split('`').skip(1).step_by(2).filter(|word| ErrorCode::from_word(word).is_some());
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    if words.is_empty() { String::new() } else { format!(" {}", words.join(", ")) }
}

/// A type in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return format!("[{name}](#{})", super::html::anchor(name));
    }
    for one in ["oneOf", "anyOf"] {
        let kinds: Vec<_> =
            list(&schema[one]).iter().filter(|option| option["type"] != "null").map(kind).collect();
        if !kinds.is_empty() {
            return kinds.join(" or ");
        }
    }
    let word = match &schema["type"] {
        Value::String(word) => word.as_str(),
        Value::Array(words) => {
            words.iter().filter_map(Value::as_str).find(|word| *word != "null").unwrap_or("any")
        }
        _ => "any",
    };
    let options: Vec<_> = list(&schema["enum"]).iter().map(|word| format!("`{}`", text(word))).collect();
    match word {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        "string" if !options.is_empty() => options.join(" or "),
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    }
}

fn shape(out: &mut String, name: &str, schema: &Value) {
    line(out, format_args!("\n### {name}\n\n{}", text(&schema["description"])));
    let Some(fields) = schema["properties"].as_object() else {
        line(out, format_args!("\n{}", kind(schema)));
        return;
    };
    let required = list(&schema["required"]);
    out.push_str("\n| field | type | |\n|---|---|---|\n");
    for (field, value) in fields {
        let optional = if required.iter().any(|name| name == field.as_str()) { "" } else { ", optional" };
        line(
            out,
            format_args!("| `{field}` | {}{optional} | {} |", kind(value), cell(&value["description"])),
        );
    }
}
