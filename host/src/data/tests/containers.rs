//! The same rows in every format give the same rows; damaged files are refused with their place, whatever was changed in them.

use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::data::error::Result;
use crate::data::fuzz::{self, mutated};
use crate::data::rows::read::jsonl;
use crate::data::rows::{Columns, Row, RowKind};

fn reference(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/references/formats");
    std::fs::read(folder.join(name)).unwrap()
}

fn rows(name: &str, bytes: &[u8]) -> Result<Vec<Row>> {
    Ok(jsonl::parse_bytes(name.as_ref(), bytes, RowKind::PromptCompletion, &Columns::new(), None)?.0)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Everything of rows but the file's name and line.
fn content(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| format!("{:?} {:?}", row.parts, Value::Object(row.columns.clone()).to_string())).collect()
}

/// Catches a codec that is not read, an array whose offsets are read wrongly, and a value that differs between formats. The
/// files were written by pyarrow: `tests/references/formats/make.py`.
#[test]
fn every_container_of_the_same_rows_gives_the_same_rows() {
    let expected = content(&rows("chats.parquet", &reference("chats.parquet")).unwrap());
    assert_eq!(expected.len(), 2);
    for name in [
        "chats.none.parquet",
        "chats.gzip.parquet",
        "chats.zstd.parquet",
        "chats.lz4.parquet",
        "chats.arrow",
        "chats.stream.arrow",
    ] {
        assert_eq!(content(&rows(name, &reference(name)).unwrap()), expected, "{name}");
    }
    let packed = gzip(&reference("chats.stream.arrow"));
    assert_eq!(content(&rows("chats.arrow.gz", &packed).unwrap()), expected);
    let columns = concat!(
        r#"{"task":"x","n":1,"small":0.1,"ok":true,"list":[1,2],"map":{"a":1}}"#,
        r#"{"task":"y","n":null,"small":0.2,"ok":false,"list":[],"map":{}}"#,
        r#"{"task":"x","n":3,"small":0.3,"ok":null,"list":[3],"map":{"b":2}}"#
    );
    for name in ["types.arrow", "types.stream.arrow"] {
        let found = rows(name, &reference(name)).unwrap();
        let shown: String = found.iter().map(|row| Value::Object(row.columns.clone()).to_string()).collect();
        assert_eq!(shown, columns, "{name}");
        assert_eq!(found[2].place.to_string(), format!("{name}:3"));
        assert_eq!(found[1].text().answer.as_deref(), Some("ä2"));
    }
    let error = rows("a.parquet.gz", &gzip(&reference("chats.parquet"))).unwrap_err();
    assert_eq!(error.to_string(), "a.parquet.gz is a Parquet file within gzip, which is not read from front to back");
}

/// Catches blocks whose lines are counted wrongly, lines that are torn between blocks or between threads, and an error that
/// depends on the number of threads.
#[test]
fn long_files_are_read_block_by_block() {
    let line = |i: usize| format!("{{\"prompt\": \"{i}\", \"completion\": \"{}\"}}\n", "ä".repeat(100 + i % 50));
    let text: String = (0..40_000).map(line).collect();
    assert!(text.len() > 9 << 20);
    for (name, bytes) in [
        ("r.jsonl", text.as_bytes().to_vec()),
        ("r.jsonl.gz", gzip(text.as_bytes())),
        ("r.jsonl.zst", zstandard(text.as_bytes())),
    ] {
        let found = rows(name, &bytes).unwrap();
        assert!(found.len() == 40_000 && found.iter().enumerate().all(|(i, row)| row.place.line == i + 1), "{name}");
        assert!(found.iter().enumerate().all(|(i, row)| row.text().prompt == i.to_string()), "{name}");
    }
    let mut wrong = text.clone();
    wrong.truncate(wrong.len() - 2);
    wrong.push_str(&format!("\n{}", text.replace("\"39000\"", "39000")));
    let error = rows("r.jsonl", wrong.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("r.jsonl:40000: not JSON: cut off at column "), "{error}");
    let error = rows("r.jsonl", text.replace("\"39000\"", "39000").as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("r.jsonl:39001: `prompt`: expected a string"), "{error}");
    let mut bytes = text.into_bytes();
    let at = bytes.len() - 2;
    bytes[at] = 0xFF;
    let error = rows("r.jsonl", &bytes).unwrap_err().to_string();
    assert!(error.contains(&format!("offset {at} (line 40000)")), "{error}");
}

/// Catches a length in a damaged file for which memory is reserved, so that the process ends: an eight-byte number of more bytes
/// than any machine has, at every place.
#[test]
fn declared_lengths_are_checked_before_memory_is_reserved() {
    for name in ["types.arrow", "types.stream.arrow", "chats.arrow", "chats.stream.arrow"] {
        let (whole, mut refused) = (reference(name), 0);
        for at in (0..whole.len() - 8).step_by(if cfg!(debug_assertions) { 16 } else { 8 }) {
            for length in [1_u64 << 50, (1 << 50) | 1, u64::MAX >> 1] {
                let mut bytes = whole.clone();
                bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
                refused += usize::from(rows("f", &bytes).is_err());
            }
        }
        assert!(refused > 10, "{name}: {refused}");
    }
}

/// Every changed file ends with rows or with an error that names it: never with a panic, a hang or the end of the process.
#[test]
fn changed_files_end_with_rows_or_a_named_error() {
    let chats = rows("chats.parquet", &reference("chats.parquet")).unwrap();
    let line = |row: &Row| {
        let text = row.text();
        serde_json::json!({"prompt": text.prompt, "completion": text.answer, "n": [1, 2.5]}).to_string()
    };
    let lines: Vec<String> = chats.iter().map(line).collect();
    let table = "prompt,completion,n\n\"a, \"\"b\"\"\",\"c\nd\",1\ne,f,2\n".to_owned();
    let texts = [lines.join("\n"), format!("[{}]", lines.join(",\n")), table.clone(), table.replace(',', "\t")];
    let mut corpus: Vec<Vec<u8>> = texts.iter().map(|text| text.clone().into_bytes()).collect();
    corpus.extend(texts.iter().flat_map(|text| [gzip(text.as_bytes()), zstandard(text.as_bytes())]));
    corpus.push(format!("\u{FEFF}{}", texts[0]).encode_utf16().flat_map(u16::to_le_bytes).collect());
    for name in [
        "chats.parquet",
        "chats.zstd.parquet",
        "chats.lz4.parquet",
        "chats.arrow",
        "chats.stream.arrow",
        "types.arrow",
        "types.stream.arrow",
    ] {
        corpus.push(reference(name));
    }
    let words = [
        "{\"messages\": [",
        "\"",
        "\"\"",
        "PAR1",
        "ARROW1\0\0",
        "\u{FEFF}",
        "\n",
        ",",
        "\t",
        "{\"text\": \"t\"}",
        "null",
    ];
    fuzz::run("files of rows", if cfg!(debug_assertions) { 500 } else { 4000 }, move |random| {
        let bytes = mutated(random, &corpus, &words);
        let kind = *random.choice(&[RowKind::PromptCompletion, RowKind::Preference, RowKind::Prompt]);
        match jsonl::parse_bytes("f".as_ref(), &bytes, kind, &Columns::new(), None) {
            Ok((rows, _)) if rows.is_empty() => Ok("empty"),
            Ok(_) => Ok("rows"),
            Err(error) if error.to_string().starts_with('f') => Ok("refused"),
            Err(error) => Err(format!("without the file's name: {error}")),
        }
    });
}

/// Catches rows that are lost where a file ends too early, without a word: only a cut between two messages of a stream, which needs
/// no mark at its end, is its end.
#[test]
fn files_that_are_cut_off_are_refused() {
    for name in ["chats.stream.arrow", "types.stream.arrow"] {
        let whole = reference(name);
        let mut read = Vec::new();
        for length in 1..whole.len() {
            match rows(name, &whole[..length]) {
                Ok(rows) => read.push((length, rows.len())),
                // Fewer bytes than the mark of a stream are no stream.
                Err(_) if length < 4 => {}
                Err(error) => {
                    let shown = error.to_string();
                    assert!(
                        shown.starts_with(&format!("{name} is an Arrow file that is cut off ")),
                        "{length}: {shown}"
                    );
                    assert_eq!(error.hint().as_deref(), Some("download or copy it again"));
                }
            }
        }
        let all = rows(name, &whole).unwrap().len();
        assert_eq!(read.last(), Some(&(whole.len() - 8, all)), "{name}: {read:?}");
        assert!(read.len() <= 6, "{name}: {read:?}");
        let last = rows(name, &whole[..whole.len() - 16]).unwrap_err().to_string();
        let expected = if all == 3 { "cut off after row 2" } else { "cut off before the end of its first rows" };
        assert!(last.ends_with(expected), "{last}");
        // A compressed stream that is cut off has an end of its own, which is not that of the stream.
        for packed in [gzip(&whole), zstandard(&whole)] {
            for length in (packed.len() / 3..packed.len()).step_by(3) {
                assert!(rows("a.arrow.gz", &packed[..length]).is_err(), "{name}: {length} of {}", packed.len());
            }
        }
    }
    for name in ["chats.arrow", "types.arrow", "chats.parquet", "chats.zstd.parquet"] {
        let whole = reference(name);
        for length in (8..whole.len()).step_by(7) {
            let error = rows(name, &whole[..length]).unwrap_err();
            assert!(error.to_string().contains(" file that is cut off"), "{name}: {length}: {error}");
            assert!(error.hint().is_some_and(|hint| hint.starts_with("download or copy it again")), "{error}");
        }
    }
    let line = "{\"prompt\": \"q\", \"completion\": \"a\"}\n";
    for pack in [gzip, zstandard] {
        let member = pack(line.as_bytes());
        let two = [member.clone(), member.clone()].concat();
        for length in member.len() - 8..two.len() {
            let found = rows("r.jsonl.gz", &two[..length]);
            match length == member.len() {
                true => assert_eq!(found.unwrap().len(), 1),
                false => assert!(found.is_err(), "{length} of {}", two.len()),
            }
        }
    }
    for list in
        ["[{\"prompt\": \"q\", \"completion\": \"a\"}", "prompt,completion\nq,a\nr", "prompt,completion\nq,a\nr,\"b"]
    {
        assert!(rows("r.csv", list.as_bytes()).is_err(), "{list}");
    }
}

/// Catches texts in columns of bytes that are learned as base64, values of other types that differ between formats, and a file
/// that is refused for a column that nothing reads.
#[test]
fn columns_of_every_type_are_read_or_left_out() {
    let columns = concat!(
        r#"{"day":"2024-02-29","millis":"2024-02-29 12:30:15.250 +00:00","micros":"2024-02-29 12:30:15.250000 +00:00","#,
        r#""time":"12:30:15.250000","price":"-1.50","took":3000,"bits":"ab"}"#,
        r#"{"day":null,"millis":null,"micros":null,"time":null,"price":null,"took":null,"bits":"cd"}"#
    );
    for name in ["unusual.parquet", "unusual.arrow"] {
        let found = rows(name, &reference(name)).unwrap();
        let shown: String = found.iter().map(|row| Value::Object(row.columns.clone()).to_string()).collect();
        assert_eq!(shown, columns, "{name}");
        let texts: Vec<_> = found.iter().map(|row| (row.text().prompt, row.text().answer.unwrap())).collect();
        assert_eq!(texts, [("q1".to_owned(), "a1".to_owned()), ("ä".to_owned(), "a2".to_owned())], "{name}");
        // The same bytes, where they are read.
        let names = Columns::from([("prompt".to_owned(), "image".to_owned())]);
        let error = jsonl::parse_bytes(name.as_ref(), &reference(name), RowKind::PromptCompletion, &names, None);
        let error = error.unwrap_err().to_string();
        let expected = format!("{name}:1: `image`: bytes that are not UTF-8 text (from byte 0 on): decode them when");
        assert!(error.starts_with(&expected), "{error}");
    }
    let views = rows("views.arrow", &reference("views.arrow")).unwrap();
    assert_eq!((views[0].text().prompt.as_str(), views[0].columns["view"].to_string().as_str()), ("q", "[1,2]"));
}

/// Catches a column that silently takes the place of another of its name.
#[test]
fn two_columns_of_one_name_are_refused() {
    for (name, what) in [("twice.parquet", "a Parquet"), ("twice.arrow", "an Arrow")] {
        let error = rows(name, &reference(name)).unwrap_err().to_string();
        assert_eq!(error, format!("{name} is {what} file with two columns `completion`"));
    }
}

/// Catches the zeros of a block that make a file damaged, and other bytes that are passed over.
#[test]
fn zeros_may_follow_gzip() {
    let line = b"{\"prompt\": \"q\", \"completion\": \"a\"}\n".as_slice();
    let packed = [gzip(line), gzip(line)].concat();
    let followed = |rest: &[u8]| rows("r.jsonl.gz", &[packed.as_slice(), rest].concat());
    for zeros in [0, 1, 512, 100_000] {
        assert_eq!(followed(&vec![0; zeros]).unwrap().len(), 2, "{zeros}");
    }
    for rest in [b"x".as_slice(), b"\0\0x", &gzip(line)[..5], &[vec![0; 70_000].as_slice(), line].concat()] {
        assert!(followed(rest).is_err(), "{rest:?}");
    }
}

/// Catches a file with a long window that is called damaged.
#[test]
fn a_long_window_is_named() {
    let header = |window: u8| [0x28, 0xB5, 0x2F, 0xFD, 0, window, 1, 0, 0];
    let error = rows("r.jsonl.zst", &header(20 << 3)).unwrap_err();
    let expected = "r.jsonl.zst is a Zstandard file whose window needs 1024 MiB of memory; the limit is 128 MiB";
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().is_some_and(|hint| hint.contains("without --long")), "{error}");
    let after = [zstandard(b"{\"prompt\": \"q\", \"completion\": \"a\"}\n").as_slice(), &header(20 << 3)].concat();
    let error = rows("r.jsonl.zst", &after).unwrap_err().to_string();
    assert!(error.contains("whose window of a later frame needs more memory; the limit"), "{error}");
    assert!(rows("r.jsonl.zst", &header(17 << 3)).is_ok_and(|rows| rows.is_empty()));
}
