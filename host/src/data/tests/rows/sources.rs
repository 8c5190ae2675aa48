//! Sources of rows: their names of columns, their files and their weights.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::data::error::Result;
use crate::data::rows::set::RowSet;
use crate::data::rows::store::corpus::RowCorpus;
use crate::data::rows::{Columns, Format, RowKind, RowOptions, RowPart};

fn columns(names: &[(&str, &str)]) -> Columns {
    names.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect()
}

fn part(folder: &Path, file: &str, names: &[(&str, &str)]) -> RowPart {
    let path = folder.join(file).display().to_string();
    RowPart { paths: vec![path], weight: 1.0, columns: columns(names), format: None }
}

fn read(mix: Vec<RowPart>, eval_paths: Vec<String>, common: Columns, kind: RowKind) -> Result<RowCorpus> {
    RowOptions { mix, eval_paths, named_by: None, ..RowOptions::all(Vec::new(), common) }.read(kind)
}

fn refused(mix: Vec<RowPart>, eval: Option<&Path>, common: Columns, kind: RowKind) -> String {
    let eval = eval.map(|path| path.display().to_string()).into_iter().collect();
    read(mix, eval, common, kind).map(|_| ()).unwrap_err().to_string()
}

/// Catches a misspelt name in one source, or for the files to evaluate on, that counts as found because another source has it.
#[test]
fn every_source_has_the_columns_that_are_named_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, gap: &str| {
        let line =
            |i: u32| json!({"prompt": format!("{name}{i}"), "chosen": "a", "rejected": "b", gap: i}).to_string() + "\n";
        fs::write(folder.path().join(name), (0..3).map(line).collect::<String>()).unwrap();
    };
    write("a.jsonl", "gap");
    write("b.jsonl", "strength");
    write("c.jsonl", "margin");
    let (own, kind) = (|file: &str, names: &[(&str, &str)]| part(folder.path(), file, names), RowKind::Preference);
    let (gap, strength) = ([("margin", "gap")], [("margin", "strength")]);
    assert!(read(vec![own("a.jsonl", &gap), own("b.jsonl", &strength)], Vec::new(), Columns::new(), kind).is_ok());
    let error = refused(vec![own("a.jsonl", &gap), own("b.jsonl", &gap[..])], None, Columns::new(), kind);
    assert!(error.contains("b.jsonl has a column \"gap\", which data.mix.1.columns.margin names"), "{error}");
    // With `data.columns` for both.
    let error = refused(vec![own("a.jsonl", &gap), own("b.jsonl", &gap)], None, columns(&gap), kind);
    assert!(error.contains("b.jsonl has a column \"gap\", which data.columns.margin names"), "{error}");
    let (chosen, eval) = ([("chosen", "chosen"), ("margin", "gap")], folder.path().join("c.jsonl"));
    assert!(read(vec![own("a.jsonl", &chosen)], vec![eval.display().to_string()], columns(&chosen), kind).is_ok());
}

/// Catches a refusal of a row that names the columns of all sources, although its source has names of its own.
#[test]
fn a_row_without_a_column_is_refused_with_the_table_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.jsonl", "b.jsonl"] {
        let row = json!({"q": name, "a": "b"}).to_string();
        fs::write(folder.path().join(name), row).unwrap();
    }
    let (own, kind) =
        (|file: &str, names: &[(&str, &str)]| part(folder.path(), file, names), RowKind::PromptCompletion);
    let (right, wrong) = ([("prompt", "q"), ("completion", "a")], [("prompt", "q"), ("completion", "aa")]);
    let error = refused(vec![own("a.jsonl", &right), own("b.jsonl", &wrong)], None, columns(&right), kind);
    assert!(
        error.contains("b.jsonl:1: needs `messages`, or `q` (data.mix.1.columns.prompt) and `aa` (data.mix.1.columns"),
        "{error}"
    );
    let error = refused(vec![own("a.jsonl", &wrong), own("b.jsonl", &right)], None, columns(&wrong), kind);
    assert!(
        error.contains("a.jsonl:1: needs `messages`, or `q` (data.columns.prompt) and `aa` (data.columns"),
        "{error}"
    );
}

/// Catches numbers of a table that stay text because their column has another name in the file.
#[test]
fn renamed_numbers_of_tables_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "prompt,chosen,rejected,gap,label\n1,2,3,0.5,x\n4,5,6,2,y\n").unwrap();
    fs::write(folder.path().join("b.csv"), "query,completion,liked,prompt\n1,2,true,7\n4,5,0,8\n").unwrap();
    let names = |file: &str, names: &[(&str, &str)], kind| {
        let corpus = read(vec![part(folder.path(), file, names)], Vec::new(), Columns::new(), kind).unwrap();
        corpus.train.to_vec().iter().map(|row| json!(row.columns).to_string()).collect::<Vec<_>>()
    };
    let found = names("a.csv", &[("margin", "gap")], RowKind::Preference);
    assert_eq!(found, [r#"{"label":"x","margin":0.5}"#, r#"{"label":"y","margin":2}"#]);
    let found = names("b.csv", &[("label", "liked"), ("prompt", "query")], RowKind::Unpaired);
    assert_eq!(found, [r#"{"label":true,"original_prompt":"7"}"#, r#"{"label":0,"original_prompt":"8"}"#]);
}

/// Catches a file that counts for two sources, one of which two sources may not read different columns, and a source that is never read because of its weight.
#[test]
fn sources_differ_and_have_rows_in_every_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: u32| json!({"prompt": format!("{i}"), "completion": "a"}).to_string() + "\n";
    fs::write(folder.path().join("a.jsonl"), (0..3).map(line).collect::<String>()).unwrap();
    fs::write(folder.path().join("b.jsonl"), (3..6).map(line).collect::<String>()).unwrap();
    fs::copy(folder.path().join("a.jsonl"), folder.path().join("c.jsonl")).unwrap();
    let (own, kind) = (|file: &str| part(folder.path(), file, &[]), RowKind::PromptCompletion);
    let error = refused(vec![own("a.jsonl"), own("c.jsonl")], None, Columns::new(), kind);
    assert!(
        error.contains("c.jsonl: is in two sources: data.mix.1 has it, and data.mix.0 has the same bytes ("),
        "{error}"
    );
    let (forth, back) = ([("prompt", "en"), ("completion", "de")], [("prompt", "de"), ("completion", "en")]);
    fs::write(folder.path().join("pairs.csv"), "en,de\none,eins\ntwo,zwei\n").unwrap();
    let pairs = |names: &[(&str, &str)]| part(folder.path(), "pairs.csv", names);
    let both = read(vec![pairs(&forth), pairs(&back)], Vec::new(), Columns::new(), kind).unwrap();
    let asked: Vec<_> = both.train.to_vec().iter().map(|row| row.question().to_owned()).collect();
    assert_eq!(asked, ["one", "two", "eins", "zwei"]);
    assert!(refused(vec![pairs(&back), pairs(&back)], None, Columns::new(), kind).contains("is in two sources"));
    // The same columns under their own names, and a format that is recognised too, are the same rows.
    let format = |format, of: RowPart| RowPart { format: Some(format), ..of };
    let same = part(folder.path(), "a.jsonl", &[("completion", "completion")]);
    for pair in [
        [own("a.jsonl"), same.clone()],
        [same, own("a.jsonl")],
        [format(Format::PromptCompletion, own("a.jsonl")), own("a.jsonl")],
    ] {
        assert!(refused(pair.to_vec(), None, Columns::new(), kind).contains("is in two sources"));
    }
    let chat = json!([{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]);
    let row = json!({"prompt": "a", "completion": "b", "messages": chat}).to_string();
    fs::write(folder.path().join("both.jsonl"), row).unwrap();
    let formats = [Format::PromptCompletion, Format::Messages].map(|own_format| format(own_format, own("both.jsonl")));
    assert!(read(formats.to_vec(), Vec::new(), Columns::new(), kind).is_ok());
    let corpus = read(vec![own("a.jsonl"), own("b.jsonl")], Vec::new(), Columns::new(), kind).unwrap();
    let mut set = RowSet::new(kind, corpus.train.clone());
    for (number, row) in corpus.train.to_vec().iter().enumerate() {
        set.push(number, Vec::new(), row, crate::data::rows::set::Columns { numbers: &[], lists: &[] }, false).unwrap();
    }
    assert!(set.mix(vec![1.0, 2.0]).is_ok());
    let error = set.mix(vec![1e9, 1e-3]).unwrap_err().to_string();
    assert!(error.starts_with("data.mix.1.weight = 0.001 is so small that none of the 6 rows"), "{error}");
}
