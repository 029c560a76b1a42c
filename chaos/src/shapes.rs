//! The tables of docs/dfsctl.md, which say what `--output json` prints, and whether an answer is as they say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/dfsctl.md");

pub struct Shapes {
    /// A row: the commands it is about, and their fields. Rows in parentheses promise no JSON of ours.
    pub rows: Vec<(Vec<String>, String)>,
    named: BTreeMap<String, String>,
}

impl Shapes {
    pub fn documented() -> Result<Self> {
        let (_, tables) = DOCUMENT.split_once("\n## JSON\n").context("docs/dfsctl.md has no part JSON")?;
        let mut shapes = Self { rows: Vec::new(), named: BTreeMap::new() };
        for line in tables.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [name, fields] = cells[..] else {
                bail!("a row of docs/dfsctl.md has not two cells: {line}")
            };
            // What stands behind a semicolon is for people.
            let fields = fields.split(';').next().unwrap_or_default().to_owned();
            if name.starts_with('`') {
                let commands = name.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect();
                shapes.rows.push((commands, fields));
            } else {
                shapes.named.insert(name.to_owned(), fields);
            }
        }
        ensure!(shapes.rows.len() > 30 && shapes.named.len() > 15, "docs/dfsctl.md lost its tables");
        Ok(shapes)
    }

    /// The fields that the row of `command` promises.
    pub fn of(&self, command: &str) -> Result<&str> {
        let row = self.rows.iter().find(|(commands, _)| commands.iter().any(|name| name == command));
        Ok(&row.with_context(|| format!("docs/dfsctl.md has no row for {command}"))?.1)
    }

    /// Fails unless `answer` has exactly these fields, and what is inside has its own. `more`: fields that may
    /// be there beside.
    pub fn check(&self, fields: &str, answer: &Value, more: &[&str]) -> Result<()> {
        let mut expected = BTreeSet::new();
        self.walk(fields, answer, &mut expected)?;
        let object = answer.as_object().with_context(|| format!("not an object: {answer}"))?;
        let said: BTreeSet<&str> =
            object.keys().map(String::as_str).filter(|key| !more.contains(key)).collect();
        let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        ensure!(
            said == expected,
            "only documented: {:?}; only printed: {:?}",
            expected.difference(&said).collect::<Vec<_>>(),
            said.difference(&expected).collect::<Vec<_>>()
        );
        Ok(())
    }

    fn walk(&self, fields: &str, answer: &Value, expected: &mut BTreeSet<String>) -> Result<()> {
        for field in fields.split_whitespace() {
            if let Some(name) = field.strip_prefix('+') {
                self.walk(self.shape(name)?, answer, expected)?;
                continue;
            }
            let (key, inner) = match field.split_once(['[', '{']) {
                Some((key, inner)) => (key, Some(inner.trim_end_matches([']', '}']))),
                None => (field, None),
            };
            expected.insert(key.to_owned());
            let Some(inner) = inner else { continue };
            let value = &answer[key];
            let elements = match value {
                Value::Array(elements) => elements.as_slice(),
                Value::Null => &[],
                object => std::slice::from_ref(object),
            };
            for element in elements {
                let common_prefix = inner == "FILE" && element.get("prefix").is_some();
                if !common_prefix {
                    let more: &[&str] = if inner == "SERVER" { &["reason"] } else { &[] };
                    self.check(self.shape(inner)?, element, more).with_context(|| format!("in {key}"))?;
                }
            }
        }
        Ok(())
    }

    fn shape(&self, name: &str) -> Result<&str> {
        self.named
            .get(name)
            .map(String::as_str)
            .with_context(|| format!("docs/dfsctl.md does not say what {name} is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_held_against_the_table() {
        let shapes = Shapes::documented().unwrap();
        let fields = shapes.of("bucket rm").unwrap();
        shapes.check(fields, &json!({"name": "a", "position": 1}), &[]).unwrap();
        assert!(shapes.check(fields, &json!({"name": "a"}), &[]).is_err());
        assert!(shapes.check(fields, &json!({"name": "a", "position": 1, "more": 2}), &[]).is_err());
        let fields = shapes.of("user ls").unwrap();
        let error = shapes.check(fields, &json!({"users": [{"name": "a"}]}), &[]).unwrap_err();
        assert!(format!("{error:#}").contains("principal_id"), "{error:#}");
        assert!(shapes.of("nothing").is_err());
    }

    #[test]
    fn every_name_in_the_tables_is_explained() {
        let shapes = Shapes::documented().unwrap();
        for (commands, fields) in shapes.rows.iter().filter(|(_, fields)| !fields.starts_with('(')) {
            shapes
                .walk(fields, &Value::Null, &mut BTreeSet::new())
                .unwrap_or_else(|error| panic!("{commands:?}: {error}"));
        }
    }
}
