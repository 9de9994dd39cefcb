//! The protocol between clients and nodes. A request and a reply are one line each, so `nc` is a
//! client too.
//!
//! ```text
//! PUT <session> <number> <key> <value>              OK | STALE
//! CAS <session> <number> <key> <expected> <value>   OK | MISMATCH <value> | STALE
//! GET <key>                                         VALUE <value> | NONE
//! STATUS                                            STATUS <name>=<value> ...
//! INITIALIZE <id>=<peers>=<clients> ...             OK
//! LEARN <id>=<peers>=<clients>                      OK
//! MEMBERS <id> ...                                  OK
//! LEAD <id>                                         OK
//! SNAPSHOT | PURGE                                  OK
//! FREEZE | THAW                                     OK
//! any request                                       LEADER <clients> | RETRY <reason>
//! any request                                       ERROR <reason>
//! ```
//!
//! A key or a value is one word, and `-` means that there is no value. After `LEADER`, send the
//! request to the named node. After `RETRY` it is unknown whether the request was done: send it
//! again, with the same session and number.

use std::{fmt, str::FromStr};

use crate::types::{Addresses, Change, Command};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Write(Command),
    Get {
        key: String,
    },
    Status,
    Initialize(Vec<(u64, Addresses)>),
    Learn(u64, Addresses),
    Members(Vec<u64>),
    Lead(u64),
    Snapshot,
    Purge,
    /// Make the node's disk hang. For tests.
    Freeze,
    Thaw,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Ok,
    Value(String),
    None,
    Mismatch(Option<String>),
    Stale,
    Status(String),
    Leader(String),
    Retry(String),
    Error(String),
}

const NOTHING: &str = "-";

fn word(value: Option<&String>) -> &str {
    value.map_or(NOTHING, String::as_str)
}

fn value(word: &str) -> Option<String> {
    (word != NOTHING).then(|| word.to_owned())
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Write(Command { session, number, change: Change::Put { key, value } }) => {
                write!(f, "PUT {session} {number} {key} {value}")
            }
            Request::Write(Command {
                session,
                number,
                change: Change::Cas { key, expected, value },
            }) => {
                write!(f, "CAS {session} {number} {key} {} {value}", word(expected.as_ref()))
            }
            Request::Get { key } => write!(f, "GET {key}"),
            Request::Status => f.write_str("STATUS"),
            Request::Initialize(nodes) => {
                f.write_str("INITIALIZE")?;
                nodes.iter().try_for_each(|(id, node)| write!(f, " {}", Member(*id, node)))
            }
            Request::Learn(id, node) => write!(f, "LEARN {}", Member(*id, node)),
            Request::Members(ids) => {
                f.write_str("MEMBERS")?;
                ids.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Request::Lead(id) => write!(f, "LEAD {id}"),
            Request::Snapshot => f.write_str("SNAPSHOT"),
            Request::Purge => f.write_str("PURGE"),
            Request::Freeze => f.write_str("FREEZE"),
            Request::Thaw => f.write_str("THAW"),
        }
    }
}

struct Member<'a>(u64, &'a Addresses);

impl fmt::Display for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Member(id, Addresses { peers, clients }) = self;
        write!(f, "{id}={peers}={clients}")
    }
}

fn member(word: &str) -> Result<(u64, Addresses), String> {
    let parts: Vec<&str> = word.split('=').collect();
    let [id, peers, clients] = parts[..] else {
        return Err(format!("{word} is not <id>=<address for peers>=<address for clients>"));
    };
    Ok((number(id)?, Addresses { peers: peers.to_owned(), clients: clients.to_owned() }))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

/// Parses a key or a new value, which must not be `-`.
fn given(word: &str) -> Result<String, String> {
    value(word).ok_or_else(|| format!("`{NOTHING}` is not a key or a value"))
}

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let write = |session: &str, count: &str, change| {
            let (session, number) = (number(session)?, number(count)?);
            Ok(Request::Write(Command { session, number, change }))
        };
        match words[..] {
            ["PUT", session, count, key, value] => {
                write(session, count, Change::Put { key: given(key)?, value: given(value)? })
            }
            ["CAS", session, count, key, expected, new] => {
                let (key, expected, value) = (given(key)?, value(expected), given(new)?);
                write(session, count, Change::Cas { key, expected, value })
            }
            ["GET", key] => Ok(Request::Get { key: given(key)? }),
            ["STATUS"] => Ok(Request::Status),
            ["INITIALIZE", ref nodes @ ..] => Ok(Request::Initialize(
                nodes.iter().map(|node| member(node)).collect::<Result<_, _>>()?,
            )),
            ["LEARN", node] => member(node).map(|(id, node)| Request::Learn(id, node)),
            ["MEMBERS", ref ids @ ..] => {
                Ok(Request::Members(ids.iter().map(|id| number(id)).collect::<Result<_, _>>()?))
            }
            ["LEAD", id] => Ok(Request::Lead(number(id)?)),
            ["SNAPSHOT"] => Ok(Request::Snapshot),
            ["PURGE"] => Ok(Request::Purge),
            ["FREEZE"] => Ok(Request::Freeze),
            ["THAW"] => Ok(Request::Thaw),
            _ => Err(format!("unknown request: {line}")),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Texts of other libraries may have line breaks.
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        match self {
            Reply::Ok => f.write_str("OK"),
            Reply::Value(value) => write!(f, "VALUE {value}"),
            Reply::None => f.write_str("NONE"),
            Reply::Mismatch(found) => write!(f, "MISMATCH {}", word(found.as_ref())),
            Reply::Stale => f.write_str("STALE"),
            Reply::Status(text) => write!(f, "STATUS {}", line(text)),
            Reply::Leader(address) => write!(f, "LEADER {address}"),
            Reply::Retry(reason) => write!(f, "RETRY {}", line(reason)),
            Reply::Error(reason) => write!(f, "ERROR {}", line(reason)),
        }
    }
}

impl FromStr for Reply {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let line = line.trim_end();
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        Ok(match name {
            "OK" => Reply::Ok,
            "VALUE" => Reply::Value(rest.to_owned()),
            "NONE" => Reply::None,
            "MISMATCH" => Reply::Mismatch(value(rest)),
            "STALE" => Reply::Stale,
            "STATUS" => Reply::Status(rest.to_owned()),
            "LEADER" => Reply::Leader(rest.to_owned()),
            "RETRY" => Reply::Retry(rest.to_owned()),
            "ERROR" => Reply::Error(rest.to_owned()),
            _ => return Err(format!("unknown reply: {line}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_display_parses_back() {
        for line in [
            "PUT 7 1 key value",
            "CAS 7 2 key - value",
            "CAS 7 3 key old new",
            "GET key",
            "STATUS",
            "INITIALIZE 1=a:1=b:1 2=a:2=b:2",
            "LEARN 4=a:4=b:4",
            "MEMBERS 1 2 4",
            "LEAD 2",
            "SNAPSHOT",
            "PURGE",
            "FREEZE",
            "THAW",
        ] {
            assert_eq!(line.parse::<Request>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn reply_display_parses_back() {
        for line in ["OK", "VALUE v", "NONE", "MISMATCH -", "MISMATCH v", "STALE", "LEADER a:1"] {
            assert_eq!(line.parse::<Reply>().unwrap().to_string(), line);
        }
        assert_eq!(Reply::Error("two\nlines".into()).to_string(), "ERROR two lines");
    }

    #[test]
    fn request_invalid_line_is_refused() {
        for line in ["", "PUT 1 1 key", "PUT x 1 key value", "GET -", "LEARN 4", "DROP key"] {
            assert!(line.parse::<Request>().is_err(), "{line}");
        }
    }
}
