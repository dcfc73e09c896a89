//! Lines of a file, each fit to be sent or not. It holds one line at a time, and of one that is too long no more than
//! the largest message.

use std::io::{self, BufRead, BufReader, Read};

use thiserror::Error;

use crate::pipeline::decode::MAX_BODY;

/// One message to be sent.
pub(super) struct Line {
    /// Of the line in its file, from 1.
    pub(super) number: u64,
    /// The message, without the line's end.
    pub(super) body: Result<String, Unfit>,
}

/// Why a line is not sent.
#[derive(Debug, Error)]
pub(super) enum Unfit {
    /// SQS refuses it.
    #[error("it is longer than the {MAX_BODY} bytes that SQS takes")]
    TooLong,
    /// SQS takes text only.
    #[error("it is no UTF-8")]
    NotText,
    /// SQS takes the characters of XML 1.0 only (SendMessage, "MessageBody").
    #[error("it has the control character U+{0:04X}, which SQS does not take")]
    Character(u32),
    /// Nothing comes after it.
    #[error(transparent)]
    Unreadable(io::Error),
}

/// The lines that are not blank.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    number: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// Those of a file.
    pub(super) fn new(file: R) -> Self {
        Self { reader: BufReader::with_capacity(64 * 1024, file), number: 0, ended: false }
    }

    /// The next line, blank or not; `None` at the end.
    fn read(&mut self) -> Option<Result<String, Unfit>> {
        // One byte more than fits, and the line's end.
        let mut line = Vec::new();
        match self.reader.by_ref().take(MAX_BODY as u64 + 2).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(Unfit::Unreadable(error))),
        }
        if line.last() == Some(&b'\n') {
            line.truncate(line.len() - if line.ends_with(b"\r\n") { 2 } else { 1 });
        } else if line.len() > MAX_BODY
            && let Err(error) = self.reader.skip_until(b'\n')
        {
            return Some(Err(Unfit::Unreadable(error)));
        }
        Some(if line.len() > MAX_BODY { Err(Unfit::TooLong) } else { text(line) })
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            if self.ended {
                return None;
            }
            let body = self.read()?;
            self.number += 1;
            self.ended = matches!(body, Err(Unfit::Unreadable(_)));
            if !matches!(&body, Ok(text) if text.trim().is_empty()) {
                return Some(Line { number: self.number, body });
            }
        }
    }
}

fn text(line: Vec<u8>) -> Result<String, Unfit> {
    let text = String::from_utf8(line).map_err(|_| Unfit::NotText)?;
    match text.chars().find(|c| !matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)) {
        Some(forbidden) => Err(Unfit::Character(u32::from(forbidden))),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line number and body, or what is wrong.
    fn read(file: &[u8]) -> Vec<(u64, String)> {
        Lines::new(file).map(|line| (line.number, line.body.unwrap_or_else(|unfit| format!("! {unfit}")))).collect()
    }

    fn line(number: u64, body: &str) -> (u64, String) {
        (number, body.to_owned())
    }

    #[test]
    fn blank_lines_count_but_are_not_sent() {
        assert_eq!(
            read(b"one\r\n\n  \ntwo \xc3\xa9 \n\nlast"),
            [line(1, "one"), line(4, "two \u{e9} "), line(6, "last")]
        );
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\n\n"), []);
    }

    #[test]
    fn the_largest_message_fits_and_one_byte_more_does_not() {
        let largest = "x".repeat(MAX_BODY);
        for end in ["", "\n", "\r\n"] {
            assert_eq!(read(format!("{largest}{end}").as_bytes()), [line(1, &largest)]);
        }
        let said = "! it is longer than the 1048576 bytes that SQS takes";
        assert_eq!(read(format!("{largest}x\nnext\n").as_bytes()), [line(1, said), line(2, "next")]);
        assert_eq!(read(format!("{}\nnext", largest.repeat(3)).as_bytes())[1], line(2, "next"));
        assert_eq!(read(largest.repeat(3).as_bytes()), [line(1, said)]);
    }

    #[test]
    fn what_sqs_does_not_take_is_named_without_showing_it() {
        let wrong = read(b"a\x1bsecret\nb\xffsecret\nc\xef\xbf\xbfsecret\nfine\ttab");
        assert_eq!(wrong[0].1, "! it has the control character U+001B, which SQS does not take");
        assert_eq!(wrong[1].1, "! it is no UTF-8");
        assert!(wrong[2].1.contains("U+FFFF"));
        assert_eq!(wrong[3].1, "fine\ttab");
        assert!(wrong.iter().all(|(_, said)| !said.contains("secret")));
    }

    #[test]
    fn nothing_follows_a_line_that_cannot_be_read() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let lines: Vec<_> = Lines::new(b"one\n".chain(Broken)).collect();
        assert_eq!(lines.len(), 2);
        assert!(matches!(&lines[1].body, Err(Unfit::Unreadable(_))));
    }
}
