//! Files as other tools write them: their text is read, or the error names the format and the command that converts
//! them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use crate::data::error::{DataError, Result};
use crate::data::reading::format::running_text::{check_learned_text, check_running_text};
use crate::data::reading::format::text;
use crate::data::rows::read::jsonl;
use crate::data::rows::{Columns, Row, RowKind};

const ROW: &str = r#"{"prompt": "q: ", "completion": "ä"}"#;

fn rows(name: &str, bytes: &[u8]) -> Result<Vec<Row>> {
    Ok(jsonl::parse_bytes(name.as_ref(), bytes, RowKind::PromptCompletion, &Columns::new(), None)?.0)
}

fn described(row: &Row) -> String {
    format!("{} {}{}", row.place, row.text().prompt, row.text().answer.unwrap_or_default())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

/// Catches a byte order mark that becomes part of the first key or of the text, and one that is left where files
/// were concatenated.
#[test]
fn a_byte_order_mark_is_not_part_of_the_data() {
    let mark = "\u{FEFF}";
    for file in [format!("{mark}{ROW}\n{ROW}"), format!("{mark}{ROW}\r\n{mark}{ROW}\r\n")] {
        let found: Vec<String> = rows("r.jsonl", file.as_bytes()).unwrap().iter().map(described).collect();
        assert_eq!(found, ["r.jsonl:1 q: ä", "r.jsonl:2 q: ä"]);
    }
    let running = text("t.txt".as_ref(), format!("{mark}ab").into_bytes()).unwrap();
    assert_eq!(running, "ab");
    // A mark elsewhere in a text is an ordinary character.
    assert_eq!(text("t.txt".as_ref(), format!("a{mark}b").into_bytes()).unwrap(), format!("a{mark}b"));
}

/// Catches the wrong byte order, a byte order mark that stays, and half a character.
#[test]
fn utf16_with_a_mark_is_read() {
    let file = format!("\u{FEFF}{ROW}\n");
    for unit in [u16::to_le_bytes, u16::to_be_bytes] {
        let mut bytes = utf16(&file, unit);
        assert_eq!(described(&rows("r.jsonl", &bytes).unwrap()[0]), "r.jsonl:1 q: ä");
        bytes.pop();
        let error = rows("r.jsonl", &bytes).unwrap_err();
        assert_eq!(error.to_string(), format!("r.jsonl is UTF-16 text that is damaged at byte {}", bytes.len() - 1));
        // Without the mark it is valid UTF-8 with a zero byte after each letter.
        let bare = rows("r.jsonl", &utf16(&ROW.replace('ä', "a"), unit)).unwrap_err();
        let name = if bytes[0] == 0xFF { "UTF-16LE" } else { "UTF-16BE" };
        assert_eq!(bare.to_string(), format!("r.jsonl is {name} text without a byte order mark"));
        let hint = format!("convert it: iconv -f {name} -t UTF-8 r.jsonl > r.converted.jsonl");
        assert_eq!(bare.hint(), Some(hint));
    }
}

/// Catches a reader that stops after the first of several gzip members, and compressed files that are read as text.
#[test]
fn gzip_is_read() {
    let twice = [gzip(format!("{ROW}\n").as_bytes()), gzip(ROW.as_bytes())].concat();
    let found: Vec<String> = rows("r.jsonl.gz", &twice).unwrap().iter().map(described).collect();
    assert_eq!(found, ["r.jsonl.gz:1 q: ä", "r.jsonl.gz:2 q: ä"]);
    let marked = gzip(format!("\u{FEFF}{ROW}").as_bytes());
    assert_eq!(rows("r.jsonl.gz", &marked).unwrap().len(), 1);
    let torn = rows("r.jsonl.gz", &twice[..twice.len() - 9]).unwrap_err();
    assert!(torn.to_string().starts_with("r.jsonl.gz is a damaged gzip file ("), "{torn}");
    let tar = gzip(&[&[b'a'; 257], b"ustar\0".as_slice(), &[0; 300]].concat());
    assert_eq!(rows("r.tgz", &tar).unwrap_err().to_string(), "r.tgz is a tar archive within gzip");
}

/// Catches lists of messages that lose their order, wrong nulls, and integers that are rounded. The file was
/// written by pyarrow: `tests/references/formats/make.py`.
#[test]
fn parquet_is_read() {
    let bytes =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/references/formats/chats.parquet")).unwrap();
    let rows = rows("chats.parquet", &bytes).unwrap();
    let shown: Vec<String> = rows.iter().map(described).collect();
    assert_eq!(shown, ["chats.parquet:1 q1a1", "chats.parquet:2 q2ä2"]);
    let columns: Vec<String> = rows.iter().map(|row| serde_json::to_string(&row.columns).unwrap()).collect();
    assert_eq!(columns, [r#"{"id":9007199254740993,"score":0.5}"#, r#"{"id":-9007199254740993,"score":null}"#]);
    let running = text("chats.parquet".as_ref(), bytes.clone()).unwrap_err();
    assert_eq!(running.to_string(), "chats.parquet is a Parquet file, which holds rows and not running text");
    for damaged in [&bytes[..bytes.len() / 2], b"PAR1".as_slice()] {
        let error = self::rows("a/b c.parquet", damaged).unwrap_err();
        assert!(error.to_string().starts_with("a/b c.parquet is a Parquet file that is cut off"), "{error}");
        assert!(!error.hint().unwrap().contains("iconv"), "{error}");
    }
}

/// Catches advice that would turn a file into garbage.
#[test]
fn other_formats_are_named_with_the_command_that_converts_them() {
    for (bytes, what, remedy) in [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n".as_slice(),
            "a Git LFS pointer",
            "git lfs pull",
        ),
        (b"PK\x03\x04\x14\0", "a zip archive", "unzip r.jsonl"),
        (b"BZh91AY&SY\0", "compressed by bzip2", "bzip2 -dk r.jsonl"),
        (b"\xFD7zXZ\0\0", "compressed by xz", "xz -dk r.jsonl"),
        (b"\x28\xB5\x2F\xFD\0", "a damaged Zstandard file (", "zstd -t r.jsonl"),
        (b"{\"a\": \"\0\xFF\"}", "binary data and not text (a zero byte at offset 7)", "pattern"),
    ] {
        for error in [text("r.jsonl".as_ref(), bytes.to_vec()).unwrap_err(), rows("r.jsonl", bytes).unwrap_err()] {
            let (shown, hint) = (error.to_string(), error.hint().unwrap());
            assert!(shown.starts_with(&format!("r.jsonl is {what}")) && hint.contains(remedy), "{shown}: {hint}");
        }
    }
    // Latin-1, for which iconv is right.
    let latin = text("r.txt".as_ref(), b"ab\xE9".to_vec()).unwrap_err();
    assert!(matches!(latin, DataError::NotUtf8 { byte: 0xE9, offset: 2, line: 1, .. }), "{latin}");
    // A text may begin with "BZh" too.
    assert_eq!(text("r.txt".as_ref(), b"BZhang".to_vec()).unwrap(), "BZhang");
}

/// Catches line numbers that are not those of the file, and rows that are lost or doubled.
#[test]
fn lists_and_objects_over_several_lines_are_read() {
    for (file, lines) in [
        (format!("[{ROW}, {ROW}]"), vec![1, 1]),
        (format!("\n[\n  {ROW},\r\n  {ROW}\n]\n"), vec![3, 4]),
        ("{\n \"prompt\": \"q: \",\n \"completion\": \"ä\"\n}".into(), vec![1]),
        (format!("{{\n\"prompt\": \"q: \",\n\"completion\":\n\"ä\"\n}}\n{{\n{}", &ROW[1..]), vec![1, 6]),
        (format!("{ROW}{ROW}\n\n{ROW}"), vec![1, 1, 3]),
        (format!("{ROW}\r{ROW}\r"), vec![1, 1]),
    ] {
        let found: Vec<String> =
            rows("r.json", file.as_bytes()).unwrap_or_else(|e| panic!("{file}: {e}")).iter().map(described).collect();
        let expected: Vec<String> = lines.iter().map(|line| format!("r.json:{line} q: ä")).collect();
        assert_eq!(found, expected, "{file}");
    }
}

/// Catches a second line number in a message, and messages without what was found.
#[test]
fn invalid_json_is_reported_with_one_line_and_column() {
    for (file, expected) in [
        (
            format!("{ROW}\n{{\"prompt\":\"q\",\"compl"),
            "r:2: not JSON: cut off at column 21 (EOF while parsing a string)",
        ),
        (
            format!("{{\"prompt\":\"q\",\"compl\n{ROW}\n"),
            "r:1: not JSON: cut off at column 21 (EOF while parsing a string)",
        ),
        (format!("{ROW}\n{{\"prompt\": NaN}}"), "r:2: not JSON: NaN at column 12: JSON has no such number; write null"),
        (
            format!("[{ROW},\n {{\"prompt\": -Infinity}}]"),
            "r:2: not JSON: -Infinity at column 13: JSON has no such number; write null",
        ),
        (
            "{\n\"prompt\": \"a\",\n\"completion\": None\n}".into(),
            "r:3: not JSON: None at column 15: Python's word; JSON writes null (json.dumps writes it so)",
        ),
        ("{\"prompt\": \"a\", \"prompt\": \"b\"}".into(), "r:1: the key `prompt` occurs twice in one object; keep one"),
        ("hello".into(), "r:1: not JSON: expected value at column 1, found \"hello\""),
        (format!("[{ROW}"), "r:1: not JSON: the file ends within its list: it was cut off"),
        (format!("{ROW},\n{ROW},\n"), "r:1: a comma after the object: JSON lines have none; remove it (sed 's/,$//')"),
        ("[1, 2]".into(), "r:1: expected an object with the row's keys, found a number"),
    ] {
        assert_eq!(rows("r", file.as_bytes()).unwrap_err().to_string(), expected, "{file}");
    }
}

/// Catches tables that are refused, cells that lose their line breaks or quotation marks, and a table whose text columns
/// become numbers.
#[test]
fn tables_are_read() {
    for (name, file) in [
        ("r.csv", "\u{FEFF}prompt,completion,n,m\n\"a, \"\"1\"\"\",\"b\nc\",0.5,\n7,8,2,x\n"),
        ("r.tsv", "prompt\tcompletion\tn\tm\n\"a, \"\"1\"\"\"\t\"b\nc\"\t0.5\t\n7\t8\t2\tx\n"),
        ("r.CSV", "prompt,completion,n,m\r\n\"a, \"\"1\"\"\",\"b\nc\",0.5,\r\n7,8,2,x"),
    ] {
        let found = rows(name, file.as_bytes()).unwrap();
        let shown: Vec<String> = found.iter().map(described).collect();
        assert_eq!(shown, [format!("{name}:2 a, \"1\"b\nc"), format!("{name}:4 78")]);
        let columns: Vec<String> = found.iter().map(|row| serde_json::to_string(&row.columns).unwrap()).collect();
        assert_eq!(columns, [r#"{"n":0.5,"m":null}"#, r#"{"n":2,"m":"x"}"#]);
    }
    // Without the name, two lines with as many commas are enough.
    assert_eq!(described(&rows("r", b"prompt,completion\n\"a, b\",b\n").unwrap()[0]), "r:2 a, bb");
    for (file, what) in [
        ("prompt,completion\na,b\na,b,c\n", "r.csv:3: 3 cells, and the first line has 2"),
        ("prompt,prompt\na,b\n", "r.csv:1: `prompt`: two columns have this name"),
        ("messages,id\n\"[{'role': 'user'}]\",1\n", "r.csv:2: `messages`: a list in Python's notation"),
        ("a,b\n1,2\n", "r.csv:2: needs `messages`, or `prompt` and `completion`; it has `a`, `b`"),
    ] {
        let error = rows("r.csv", file.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
    for (file, what) in [
        (
            "prompt,completion\na,b\nc,\"d\ne,f\n",
            "r.csv:3: a quotation mark opens a cell here and is not closed before the end",
        ),
        (
            "prompt,completion\nc,\"d\ne,\"f\"\n",
            "r.csv:2: a quotation mark opens a cell here, and text follows the one that closes it in line 3",
        ),
    ] {
        let error = rows("r.csv", file.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(what), "{error}");
    }
    let error = rows("r.csv", b"prompt,completion\na,b\na,\xE9\n").unwrap_err();
    assert!(matches!(error, DataError::NotUtf8 { byte: 0xE9, offset: 24, line: 3, .. }), "{error}");
}

/// Catches a loss that is measured on a file's syntax, and texts that are refused because they contain braces.
#[test]
fn rows_and_settings_are_not_running_text() {
    let check = |name: &str, text: &str| check_running_text(name.as_ref(), text).map_err(|error| error.to_string());
    for (name, text, what) in [
        ("a.jsonl", ROW, "a file of rows"),
        ("a.JSON", "{}", "a file of JSON"),
        ("a.csv.gz", "a,b", "a table"),
        ("a.toml", "name = \"a\"", "a file of settings"),
        ("a.txt", ROW, "a file of rows: every line is an object of JSON"),
        ("a.txt", "[1, \"a\"]\n[2, \"b\"]\n", "a file of rows: every line is a list of JSON, or an object"),
        ("a.txt", "[\n  {\"a\": 1},\n  {\"a\": 2}\n]\n", "a file of JSON: one object or list"),
        ("a", "\n{\n  \"text\": \"t\"\n}", "a file of JSON: one object or list"),
        ("a.txt", "<!DOCTYPE html>\n<html><body>t</body></html>", "an HTML page"),
        ("a.txt", "# A run.\nname = \"a\"\n\n[train]\nsteps = 1\n", "a file of settings: TOML"),
    ] {
        let expected = format!("{name} is {what}, and its syntax would be measured too");
        assert_eq!(check(name, text), Err(expected));
    }
    for text in [
        "{a} set",
        "{\"a\": 1}\nand text",
        "",
        "[1]",
        "# A heading",
        "<p> is a tag",
        "a = b, as they say",
        "x = 1\ny = 2\nz = \"three\"\n",
        "[1]\n[2]\n",
    ] {
        assert_eq!(check("a.txt", text), Ok(()));
    }
    let remedy = check_running_text("d/a.txt".as_ref(), ROW).unwrap_err().hint().unwrap_or_default();
    assert!(remedy.contains("`telos eval MODEL --rows d/a.txt`"), "{remedy}");
}

/// Catches keys and brackets that are learned as text, and a corpus of program code that is refused because one of
/// its files is JSON.
#[test]
fn rows_are_not_learned_as_running_text() {
    let check = |name: &str, text: &str| check_learned_text(name.as_ref(), text).map_err(|error| error.to_string());
    let expected = |name: &str| {
        format!("{name} is a file of rows, and not running text: its keys and brackets would be learned too")
    };
    let text = "{\"text\": \"once\"}\n\n{\"text\": \"upon\"}\n";
    for name in ["a.jsonl", "a.jsonl.gz", "a.txt", "a.json"] {
        assert_eq!(check(name, text), Err(expected(name)));
    }
    assert_eq!(check("a.jsonl", "{\"text\": 1}\n{\"tex"), Err(expected("a.jsonl")));
    for (name, text) in [
        ("package.json", "{\"name\": \"a\"}"),
        ("fixture.jsonl", "{\"other\": 1}\n"),
        ("a.txt", "{\"text\": 1}\nand more"),
        ("a.toml", "a = 1"),
        ("a.html", "<html>"),
    ] {
        assert_eq!(check(name, text), Ok(()), "{name}");
    }
    let remedy = check_learned_text("a.jsonl".as_ref(), text).unwrap_err().hint().unwrap_or_default();
    assert!(remedy.contains("jq -r .text a.jsonl > text.txt"), "{remedy}");
}

/// Catches other notations that are refused as invalid JSON, without being named.
#[test]
fn other_notations_are_named() {
    let read = |text: &str| jsonl::parse("rows.jsonl".as_ref(), text, RowKind::PromptCompletion, &Columns::new());
    let message = |text: &str| {
        let error = read(text).unwrap_err();
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    for (text, what) in [
        (
            "<!DOCTYPE html>\n<html><head></head></html>",
            "rows.jsonl is an HTML page, and not JSON lines; download the file itself",
        ),
        ("<?xml version=\"1.0\"?><rows/>", "rows.jsonl is XML, and not JSON lines"),
        ("- prompt: a\n  completion: b\n", "rows.jsonl is YAML, and not JSON lines; convert it to JSON lines: python3"),
        ("# rows\n---\n- prompt: a\n", "rows.jsonl is YAML, and not JSON lines"),
        ("prompt: a\ncompletion: b\n", "rows.jsonl is YAML, and not JSON lines"),
        ("{\"prompt\": \"\\ud83d\", \"completion\": \"b\"}", "rows.jsonl:1: not JSON: half of a pair of surrogates"),
        ("{\"prompt\": \"\\ude00\", \"completion\": \"b\"}", "rows.jsonl:1: not JSON: half of a pair of surrogates"),
        ("words and more", "rows.jsonl:1: not JSON: expected"),
    ] {
        assert!(message(text).starts_with(what), "{text}: {}", message(text));
    }
    assert!(read("{\"prompt\": \"\\ud83d\\ude00\", \"completion\": \"b\"}").is_ok());
}

/// Catches a table with another separator whose whole lines become one cell, and a list of choices that stays text.
#[test]
fn separators_of_tables_are_named() {
    for (name, file, what, remedy) in [
        (
            "r.csv",
            "prompt;completion\na;b\n",
            "separated by semicolons; commas are expected",
            "read_csv('r.csv', sep=';')",
        ),
        ("r.csv", "prompt\tcompletion\na\tb\n", "separated by tabs; commas are expected", "name the file .tsv"),
        ("r.tsv", "prompt,completion\na,b\n", "separated by commas; tabs are expected", "name the file .csv"),
        ("r.csv", "sep=;\nprompt;completion\n", "whose first line names the separator", "remove that line"),
        ("r.csv", "sep=,\nprompt,completion\nq,a\n", "whose first line names the separator", "remove that line"),
    ] {
        let error = rows(name, file.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(remedy)), "{error}");
    }
    let file = b"prompt,choices,note\nq,\"[\"\"a\"\", \"\"b\"\"]\",\"[\"\"a\"\"]\"\n";
    let read = jsonl::parse_bytes("r.csv".as_ref(), file, RowKind::Prompt, &Columns::new(), None).unwrap().0;
    assert_eq!(serde_json::to_string(&read[0].columns).unwrap(), r#"{"choices":["a","b"],"note":"[\"a\"]"}"#);
    let file = b"prompt,options\nq,\"[\"\"a\"\", \"\"b\"\"]\"\n";
    let names = Columns::from([("choices".to_owned(), "options".to_owned())]);
    let read = jsonl::parse_bytes("r.csv".as_ref(), file, RowKind::Prompt, &names, None).unwrap().0;
    assert_eq!(serde_json::to_string(&read[0].columns).unwrap(), r#"{"choices":["a","b"]}"#);
    let table = utf16("\u{FEFF}prompt,completion\na,b\n", u16::to_le_bytes);
    let error = rows("u16.csv", &table).unwrap_err();
    assert_eq!(error.to_string(), "u16.csv is a table in UTF-16, separated by commas");
    assert_eq!(error.hint().as_deref(), Some("convert it: iconv -f UTF-16 -t UTF-8 u16.csv > converted.csv"));
}
