//! The Markdown of our own documents as a page. Only what those use: headings, paragraphs, lists,
//! tables, code, emphasis and links. Everything else is shown as it stands, escaped.

use std::fmt::Write as _;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1,h2,h3{line-height:1.2;margin:2rem 0 .5rem}h2{border-bottom:1px solid #d0d7de}\
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f4f6;border-radius:4px}code{padding:.1em .3em}\
pre{padding:.8rem;overflow-x:auto}pre code{padding:0}table{border-collapse:collapse;display:block;overflow-x:auto}\
td,th{border:1px solid #d0d7de;padding:.25rem .6rem;text-align:left;vertical-align:top}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}code,pre{background:#161b22}a{color:#6cb6ff}td,th,h2{border-color:#30363d}}";

/// What a heading is called in links: as GitHub and its kind make it.
pub fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A whole page.
pub fn page(title: &str, markdown: &str) -> String {
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{}</title><style>{STYLE}</style>\n",
            escape(title)
        ),
    );
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(level) = heading_level(line) {
            let text = line[level + 1..].trim();
            let id = anchor(text);
            put(&mut out, format_args!("<h{level} id=\"{}\">{}</h{level}>\n", escape(&id), inline(text)));
        } else if line.starts_with("```") {
            out.push_str("<pre><code>");
            for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                put(&mut out, format_args!("{}\n", escape(line)));
            }
            out.push_str("</code></pre>\n");
        } else if line.starts_with('|') {
            let mut rows = vec![line];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(row);
            }
            table(&mut out, &rows);
        } else if line.starts_with("- ") {
            out.push_str("<ul>\n");
            let mut item = Some(line);
            while let Some(first) = item {
                let mut text = first[2..].to_owned();
                while let Some(more) = lines.next_if(|line| line.starts_with("  ")) {
                    text.push(' ');
                    text.push_str(more.trim());
                }
                put(&mut out, format_args!("<li>{}</li>\n", inline(&text)));
                item = lines.next_if(|line| line.starts_with("- "));
            }
            out.push_str("</ul>\n");
        } else if !line.trim().is_empty() {
            let mut text = line.to_owned();
            while let Some(more) = lines.next_if(|line| is_prose(line)) {
                text.push(' ');
                text.push_str(more);
            }
            put(&mut out, format_args!("<p>{}</p>\n", inline(&text)));
        }
    }
    out
}

fn heading_level(line: &str) -> Option<usize> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    ((1..=4).contains(&level) && line.as_bytes().get(level) == Some(&b' ')).then_some(level)
}

fn is_prose(line: &str) -> bool {
    !line.trim().is_empty()
        && heading_level(line).is_none()
        && !["```", "|", "- "].iter().any(|start| line.starts_with(start))
}

fn table(out: &mut String, rows: &[&str]) {
    out.push_str("<table>\n");
    for (number, row) in rows.iter().enumerate() {
        // The line below the head.
        if number == 1 {
            continue;
        }
        let cell = if number == 0 { "th" } else { "td" };
        let row = row.trim().trim_matches('|').replace("\\|", "\u{1}");
        out.push_str("<tr>");
        for text in row.split('|') {
            put(out, format_args!("<{cell}>{}</{cell}>", inline(&text.trim().replace('\u{1}', "|"))));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

/// Code, bold text and links inside a line.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        out.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        let taken = code(rest).or_else(|| bold(rest)).or_else(|| link(rest));
        let (html, used) = taken.unwrap_or_else(|| (rest[..1].to_owned(), 1));
        out.push_str(&html);
        rest = &rest[used..];
    }
    out.push_str(&escape(rest));
    out
}

fn code(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix('`')?;
    let end = inner.find('`')?;
    Some((format!("<code>{}</code>", escape(&inner[..end])), end + 2))
}

fn bold(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix("**")?;
    let end = inner.find("**")?;
    Some((format!("<strong>{}</strong>", escape(&inner[..end])), end + 4))
}

/// Links lead to a place on the page or to another of our documents.
fn link(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix('[')?;
    let (name, rest) = inner.split_once("](")?;
    let (target, _) = rest.split_once(')')?;
    if name.contains(['[', ']']) {
        return None;
    }
    let target_html = match target {
        "troubleshooting.md" => "/docs/errors",
        "rest.md" => "/docs",
        place if place.starts_with('#') => place,
        _ => return None,
    };
    let html = format!("<a href=\"{}\">{}</a>", escape(target_html), inline(name));
    Some((html, 1 + name.len() + 2 + target.len() + 1))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// Writing to a String cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_our_documents_use() {
        let page = page(
            "T",
            "# A `b`\n\nOne <b>\ntwo **three** [x](#y).\n\n- i\n  j\n- k\n\n| a | b |\n|---|---|\n| `c\\|d` | <e> |\n\n```\n<f> *g*\n```\n* [z](javascript:1)",
        );
        for part in [
            "<h1 id=\"a-b\">A <code>b</code></h1>",
            "<p>One &lt;b&gt; two <strong>three</strong> <a href=\"#y\">x</a>.</p>",
            "<ul>\n<li>i j</li>\n<li>k</li>\n</ul>",
            "<tr><th>a</th><th>b</th></tr>\n<tr><td><code>c|d</code></td><td>&lt;e&gt;</td></tr>",
            "<pre><code>&lt;f&gt; *g*\n</code></pre>",
            "<p>* [z](javascript:1)</p>",
        ] {
            assert!(page.contains(part), "{part}\nnot in\n{page}");
        }
    }

    #[test]
    fn anchors() {
        assert_eq!(anchor("GET /files/{id}"), "get-filesid");
        assert_eq!(anchor("not_found"), "not_found");
    }
}
