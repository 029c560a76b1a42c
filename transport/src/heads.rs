//! Heads of HTTP/1 requests, looked at on their way in: a line that ends in a bare LF is refused.
//!
//! The parser takes a bare LF for the end of a line and has no switch against it. A machine in front that takes
//! it for a part of the line sees other headers than we do, another length among them, and then the two disagree
//! where one request ends and the next begins. So the parser gets [`SPOILED`] in place of such an LF and of all that
//! follows: it answers 400 and closes. To know where heads are, bodies are counted by their Content-Length. Nothing
//! behind a chunked body is read as a request (`serve.rs`), so nothing is looked at there.
//!
//! If this and the parser ever disagreed about a length, requests would be refused that need not be; none would
//! be let through that the parser would refuse. Owner: one connection. Memory: a few bytes, or one line that
//! tells a length.

use dfs_types::limits::HTTP2_MAX_FRAME_BYTES;

/// NUL may stand nowhere in a head; with the end of the head, so that nobody waits for more of it.
pub(crate) const SPOILED: &[u8] = b"\0\r\n\r\n";

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
/// What a connection that speaks HTTP/2 all the same begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// Of a line that tells no length, so much is kept.
const KEPT: usize = 20;
/// The parser gives up heads of this size.
const LONGEST: usize = HTTP2_MAX_FRAME_BYTES as usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Head,
    /// So many bytes of it are to come.
    Body(u64),
    /// Nothing that comes now is read as a head of HTTP/1.
    Rest,
}

/// Where in the stream of requests a connection is.
#[derive(Debug)]
pub(crate) struct Heads {
    place: Place,
    /// The present line, without what need not be kept.
    line: Vec<u8>,
    last: u8,
    /// The request line was seen.
    begun: bool,
    length: u64,
    chunked: bool,
}

impl Heads {
    /// Of a connection whose two sides agreed on HTTP/2, or on HTTP/1.1.
    pub fn new(http2: bool) -> Self {
        let place = if http2 { Place::Rest } else { Place::Head };
        Self { place, line: Vec::new(), last: 0, begun: false, length: 0, chunked: false }
    }

    /// Looks at bytes that have just come. Answers where a bare LF is in a head, and looks at nothing any more.
    pub fn check(&mut self, bytes: &[u8]) -> Option<usize> {
        let all = bytes.len();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            match self.place {
                Place::Rest => return None,
                Place::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[here..];
                    self.place = match left - here as u64 {
                        0 => Place::Head,
                        left => Place::Body(left),
                    };
                }
                Place::Head => match bytes.iter().position(|byte| *byte == b'\n') {
                    None => {
                        self.keep(bytes);
                        return None;
                    }
                    Some(at) => {
                        self.keep(&bytes[..at]);
                        if self.last != b'\r' {
                            self.place = Place::Rest;
                            return Some(all - bytes.len() + at);
                        }
                        self.line_ended();
                        bytes = &bytes[at + 1..];
                    }
                },
            }
        }
        None
    }

    fn keep(&mut self, part: &[u8]) {
        let Some(last) = part.last() else { return };
        self.last = *last;
        let (start, more) = part.split_at(part.len().min(KEPT.saturating_sub(self.line.len())));
        self.line.extend_from_slice(start);
        if !more.is_empty() && begins_with(&self.line, LENGTH) {
            self.line.extend_from_slice(more);
            if self.line.len() > LONGEST {
                self.place = Place::Rest;
            }
        }
    }

    /// At its LF. The CR is the last of `line` if the whole line was kept.
    fn line_ended(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.last = 0;
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        if text.is_empty() {
            // Before a request line, empty lines say nothing.
            if self.begun {
                self.head_ended();
            }
        } else if !self.begun {
            self.begun = true;
            if text == PREFACE {
                self.place = Place::Rest;
            }
        } else if begins_with(text, CODING) {
            self.chunked = true;
        } else if begins_with(text, LENGTH) {
            match number(&text[LENGTH.len()..]) {
                Some(length) => self.length = length,
                // The parser refuses it.
                None => self.place = Place::Rest,
            }
        }
    }

    fn head_ended(&mut self) {
        let length = std::mem::take(&mut self.length);
        self.begun = false;
        self.place = match (self.chunked, length) {
            (true, _) => Place::Rest,
            (false, 0) => Place::Head,
            (false, length) => Place::Body(length),
        };
    }
}

fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a bare LF is found, if the bytes come in pieces of this size.
    fn found(text: &str, piece: usize) -> Option<usize> {
        let mut heads = Heads::new(false);
        let mut pieces = text.as_bytes().chunks(piece).enumerate();
        pieces.find_map(|(number, bytes)| Some(number * piece + heads.check(bytes)?))
    }

    #[test]
    fn a_bare_line_feed_in_a_head_is_found_wherever_it_stands() {
        let body = "{\n\"a\":\n1}";
        let good = format!("POST /a HTTP/1.1\r\nhost: x\r\nContent-LENGTH: \t{} \r\n\r\n{body}", body.len());
        let padded =
            format!("GET / HTTP/1.1\r\nx: y\r\ncontent-length:{}9\r\n\r\n\n\n\n\n\n\n\n\n\n", "0".repeat(50));
        for piece in [1, 2, 3, 7, 1000] {
            for whole in [
                "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
                "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
                &good,
                &good.repeat(3),
                &padded.repeat(2),
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
                "POST / HTTP/1.1\r\ncontent-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET\n",
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\n\n\0",
                "GET / HTTP/1.1\r\ncontent-length: no\r\n\r\n",
            ] {
                assert_eq!(found(whole, piece), None, "pieces of {piece}: {whole}");
            }
            for (bad, at) in [
                ("\nGET / HTTP/1.1\r\n\r\n", 0),
                ("GET / HTTP/1.1\nhost: x\r\n\r\n", 14),
                ("GET / HTTP/1.1\r\nhost: x\n\r\n", 23),
                ("GET / HTTP/1.1\r\nhost: x\r\n\n", 25),
                ("GET / HTTP/1.1\r\n\n", 16),
                ("GET / HTTP/1.1\r\nx: a\ncontent-length: 5\r\n\r\nabcde", 20),
                ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nx: a\n\r\n", 38),
            ] {
                assert_eq!(found(bad, piece), Some(at), "pieces of {piece}: {bad}");
            }
            let after = format!("{good}GET / HTTP/1.1\n\r\n");
            assert_eq!(found(&after, piece), Some(good.len() + 14), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_kept_of_a_line_is_little() {
        let mut heads = Heads::new(false);
        heads.check(&b"GET /".repeat(100_000));
        assert_eq!(heads.line.len(), KEPT);
        let mut heads = Heads::new(false);
        heads.check(b"GET / HTTP/1.1\r\ncontent-length: ");
        for _ in 0..100 {
            heads.check(&b" ".repeat(LONGEST / 10));
        }
        assert!(heads.line.len() < LONGEST * 2 && heads.place == Place::Rest);
        assert_eq!(Heads::new(true).check(b"GET / HTTP/1.1\n"), None, "HTTP/2 has no lines");
    }
}
