//! Tables and lists of fields without lines. On a terminal they fit it: columns that matter less go first and are
//! named below, then long cells are broken; header words and names of fields never are. Elsewhere a row is a line,
//! however long, so that other programs can read it.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, TableStyle, Width};

/// Between columns.
const GAP: u16 = 2;
/// A cell longer than this is rather broken than that a column goes for it.
const COMFORT: u16 = 24;

/// Whether tables are coloured: said once, by the command line.
static COLOUR: AtomicBool = AtomicBool::new(false);

pub(crate) fn use_colour(on: bool) {
    COLOUR.store(on, Ordering::Relaxed);
}

/// A table with a header. `less`: the columns that a narrow terminal does without, the first to go first.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    less: &[&str],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows = rows.into_iter().map(Vec::from).collect();
    lay_out(terminal_width(), COLOUR.load(Ordering::Relaxed), &header, less, rows)
}

/// Names of fields and what they say, a line each.
pub(crate) fn fields<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows = rows.into_iter().map(Vec::from).collect();
    lay_out(terminal_width(), COLOUR.load(Ordering::Relaxed), &[], &[], rows)
}

/// Columns of the terminal that standard output is, if it is one.
fn terminal_width() -> Option<u16> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

fn lay_out(
    width: Option<u16>,
    colour: bool,
    header: &[&str],
    less: &[&str],
    rows: Vec<Vec<String>>,
) -> String {
    let natural = draw(colour, header, &rows);
    let Some(width) = width else { return natural.trim_fmt() };
    let longest = natural.column_max_content_widths();
    let least: Vec<u16> = match header {
        // The names of fields.
        [] => longest.iter().take(1).copied().chain(std::iter::repeat(1)).take(longest.len()).collect(),
        header => header.iter().map(|word| word.chars().count() as u16).collect(),
    };
    let wanted = |column: &usize| longest[*column].min(least[*column].max(COMFORT));
    let mut kept: Vec<usize> = (0..longest.len()).collect();
    let mut gone = Vec::new();
    for word in less {
        let needed = kept.iter().map(wanted).sum::<u16>() + GAP * (kept.len() as u16).saturating_sub(1);
        if needed <= width {
            break;
        }
        kept.retain(|column| header[*column] != *word);
        gone.push(*word);
    }
    let of_kept = |row: &Vec<String>| kept.iter().filter_map(|column| row.get(*column).cloned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(of_kept).collect();
    let header: Vec<&str> = kept.iter().filter_map(|column| header.get(*column).copied()).collect();
    let mut table = draw(colour, &header, &rows);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    for (column, place) in table.column_iter_mut().zip(&kept) {
        // Boundaries count the padding.
        let boundary = Width::Fixed(least[*place].min(longest[*place]) + column.padding_width());
        column.set_constraint(ColumnConstraint::LowerBoundary(boundary));
    }
    let text = table.trim_fmt();
    if gone.is_empty() {
        return text;
    }
    format!("{text}\n{}", broken(&format!("not shown here: {}", gone.join(", ")), usize::from(width)))
}

fn draw(colour: bool, header: &[&str], rows: &[Vec<String>]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(TableStyle::new());
    table.force_no_tty();
    if colour {
        table.enforce_styling();
    }
    if !header.is_empty() {
        table.set_header(header.iter().map(|word| cell(word, colour, true)));
    }
    let cells = |row: &Vec<String>| -> Vec<Cell> {
        // The name of a field may be a word that is a state elsewhere.
        let is_name = |place| header.is_empty() && place == 0;
        let cells = row.iter().enumerate();
        cells.map(|(place, text)| cell(text, colour && !is_name(place), false)).collect()
    };
    table.add_rows(rows.iter().map(cells));
    let last = table.column_count().saturating_sub(1);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if place == last { 0 } else { GAP }));
    }
    table
}

/// Words for states have a colour: what needs somebody, what will pass, what is well.
fn cell(text: &str, colour: bool, head: bool) -> Cell {
    let of_state = match text {
        "down" | "no" | "removed" | "gone" | "stopped" => Some(Color::Red),
        "suspect" | "draining" | "starting" | "learner" => Some(Color::Yellow),
        "up" | "yes" | "ready" | "leader" => Some(Color::Green),
        _ => None,
    };
    let cell = Cell::new(text);
    match (colour, head, of_state) {
        (false, ..) => cell,
        (true, true, _) => cell.add_attribute(Attribute::Bold),
        (true, false, Some(of_state)) => cell.fg(of_state),
        (true, false, None) => cell,
    }
}

/// Lines of at most `width` columns, broken between words.
fn broken(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("invariant: there is a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 8] = ["NODE", "STATE", "ADDRESS", "DOMAIN", "USED", "CAPACITY", "FILL", "CHUNKS"];
    const LESS: &[&str] = &["DOMAIN", "CAPACITY", "USED", "CHUNKS"];

    fn nodes() -> Vec<Vec<String>> {
        let row = |name: &str, address: &str| {
            [name, "suspect", address, "zone-a/rack-1", "125.77 MiB", "1.82 TiB", "37%", "123456"]
                .map(str::to_owned)
                .to_vec()
        };
        vec![
            row("n1", "127.0.0.1:7403"),
            row("n2", "chunk-server-0.chunk-server.storage.svc.cluster.local:3001"),
        ]
    }

    /// Each line fits, and each word of the header is there whole or named as not shown.
    fn check(width: u16, header: &[&str], less: &[&str], rows: Vec<Vec<String>>) -> String {
        let text = lay_out(Some(width), false, header, less, rows.clone());
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{width}:\n{text}");
        let (head, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
        for word in header {
            let shown = head.split_whitespace().any(|there| there == *word);
            let named = text.contains("not shown here:") && text.contains(word);
            assert!(shown || named, "{width}: {word} is broken\n{text}\n{last}");
        }
        let coloured = lay_out(Some(width), true, header, less, rows);
        assert_eq!(coloured.lines().count(), text.lines().count(), "colour is no width");
        text
    }

    /// At 40 columns words of headers were broken in the middle: every column got its share, however narrow.
    #[test]
    fn a_narrow_terminal_has_fewer_columns_and_whole_words() {
        for width in [40, 50, 60, 80, 100, 200] {
            check(width, &HEADER, LESS, nodes());
        }
        let narrow = check(40, &HEADER, LESS, nodes());
        assert!(narrow.contains("n1") && narrow.contains("37%") && !narrow.contains("1.82 TiB"), "{narrow}");
        let wide = check(200, &HEADER, LESS, nodes());
        assert!(!wide.contains("not shown") && wide.lines().count() == 3, "{wide}");
        // A single long cell is broken before a column goes for it.
        let usual = check(100, &HEADER, LESS, nodes());
        assert!(!usual.contains("not shown") && usual.lines().count() > 3, "{usual}");
    }

    #[test]
    fn names_of_fields_are_whole_and_values_are_broken() {
        let rows = [("chunks_only_here", "7"), ("incarnation", "7d4ac0c8-95d1-4cf1-8e3c-6a0b3f1c2d4e")];
        let rows = rows.map(|(name, value)| vec![name.to_owned(), value.to_owned()]).to_vec();
        let narrow = lay_out(Some(40), false, &[], &[], rows.clone());
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        assert!(narrow.contains("chunks_only_here  7") && narrow.lines().count() > 2, "{narrow}");
        assert_eq!(lay_out(None, false, &[], &[], rows).lines().count(), 2);
        let named = vec![["leader", "up"].map(str::to_owned).to_vec()];
        let coloured = lay_out(None, true, &[], &[], named);
        assert!(coloured.starts_with("leader") && coloured.contains("\u{1b}["), "{coloured:?}");
    }

    #[test]
    fn what_is_not_a_terminal_gets_a_row_a_line_and_no_colour() {
        let piped = lay_out(None, false, &HEADER, LESS, nodes());
        assert_eq!(piped.lines().count(), 3, "{piped}");
        assert!(!piped.contains('\u{1b}'), "{piped:?}");
        let coloured = lay_out(None, true, &HEADER, LESS, nodes());
        assert!(coloured.contains("\u{1b}[") && coloured.contains("suspect"), "{coloured:?}");
    }
}
