//! The golden record of everything permanent in the contract: ids, names, codes, sizes, offsets and slots.
//!
//! A line that changes or disappears breaks every plugin already built and requires a new major version. Lines are added with a
//! new minor version. `TELOS_BLESS=1 cargo test --release -p plugin-api --test abi_lock` rewrites the file.

use abi_stable::{StableAbi, type_layout::TypeLayout};
use plugin_api::{
    Code,
    abi::{
        AbiError, ArrayOwned, ArrayRef, Attr, Call, DType, Handle, Memory, Status, View,
        header::{ABI_MAJOR, ABI_MINOR, HEADER_PREFIX, MAGIC, PluginHeader, ROOT_PREFIX},
        ratings,
        tables::{BackendTableRef, ColumnRef, Instance, ObjectiveTableRef, PluginRootRef, RewardTableRef, SampleRef},
        wire,
    },
    backend::{
        catalogue::{OpSpec, OperandSpec, Usage},
        ops::{ActivationKind, CATALOGUE, FLAT_ALIGN, MaskKind, NormKind},
    },
    batch::{Scope, names},
    contract::{BACKEND_KEYS, OBJECTIVE_KEYS, RESERVED_PREFIX, REWARD_KEYS},
    manifest::{
        AttentionMask, BackendManifest, Candidates, ColumnValue, DataKind, DeviceSpec, Divergence, Expectation,
        GivenNumber, MetricSpec, Normaliser, ObjectiveColumn, ObjectiveManifest, OptionSpec, Reduction, Requirements,
        RewardColumn, RewardManifest, RewardPart, Statistic, StopGradient, TermNormaliser, TermSpec, kind,
    },
    objective::Verdict,
};
use serde_json::Value;
use std::{fmt::Write, fs, mem::offset_of};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/abi.lock");

#[test]
fn the_contract_matches_abi_lock() {
    let now = contract();
    if std::env::var_os("TELOS_BLESS").is_some() {
        fs::write(PATH, &now).unwrap();
    }
    let locked = fs::read_to_string(PATH).unwrap_or_default();
    for (number, (was, is)) in locked.lines().zip(now.lines()).enumerate() {
        assert_eq!(is, was, "abi.lock:{} (left: now, right: locked)", number + 1);
    }
    assert_eq!(now.lines().count(), locked.lines().count(), "lines were appended or lost; see the head of this file");
}

/// Catches two operations under one id or name, and operands that share a name.
#[test]
fn ids_and_names_are_unique() {
    for (i, op) in CATALOGUE.iter().enumerate() {
        assert_eq!(op.id as usize, i, "{}: ids ascend without a gap", op.name);
        assert!(CATALOGUE[..i].iter().all(|other| other.name != op.name), "{}", op.name);
        let names = op.inputs.iter().chain(op.outputs).map(|o| o.name).chain(op.attrs.iter().map(|a| a.name));
        let names: Vec<&str> = names.collect();
        assert!(names.iter().enumerate().all(|(n, name)| !names[..n].contains(name)), "{}", op.name);
        for (output, input) in op.aliases {
            assert!(op.outputs.iter().any(|o| o.name == *output), "{}: no output {output}", op.name);
            assert!(op.inputs.iter().any(|o| o.name == *input), "{}: no input {input}", op.name);
        }
    }
}

fn contract() -> String {
    let mut out = format!("contract {ABI_MAJOR}.{ABI_MINOR}\n");
    symbols(&mut out);
    structs(&mut out);
    tables(&mut out);
    numbers(&mut out);
    texts(&mut out);
    descriptions(&mut out);
    for op in CATALOGUE {
        operation(&mut out, op);
    }
    reserved(&mut out);
    out
}

/// Adds a line.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => { writeln!($out, $($arg)*).unwrap() };
}

fn symbols(out: &mut String) {
    line!(
        out,
        "\nsymbols: header {HEADER_PREFIX}ID, root {ROOT_PREFIX}ID, magic {:?}",
        String::from_utf8_lossy(&MAGIC)
    );
}

/// A struct's size, alignment and field offsets.
macro_rules! layout {
    ($out:expr, $Type:ident { $($field:tt),* $(,)? }) => {
        line!($out, "\nstruct {} size {} align {}", stringify!($Type), size_of::<$Type>(), align_of::<$Type>());
        $(line!($out, "  {:>4} {}", offset_of!($Type, $field), stringify!($field));)*
        // All fields must be listed above: the struct pattern does not compile if one is missing.
        #[allow(unused_variables, clippy::redundant_field_names)]
        let _ = |value: $Type| { let $Type { $($field: _),* } = value; };
    };
}

fn structs(out: &mut String) {
    layout!(out, PluginHeader { magic, bytes, abi_major, abi_minor, requires_minor, kind, id, version, preload });
    layout!(out, DType { 0 });
    layout!(out, Handle { 0 });
    layout!(out, Instance { 0 });
    layout!(out, View { buffer, offset, rows, cols, row_stride, dtype, reserved });
    layout!(out, Attr { name, kind, reserved, bits });
    layout!(out, Call { op, version, inputs, outputs, attrs });
    layout!(out, Memory { in_use, cached, peak, handles, fresh_allocations });
    layout!(out, ArrayRef { name, scope, differentiable, rows, cols, data });
    layout!(out, ArrayOwned { owner, name, scope, role, rows, cols, data });
    layout!(out, AbiError { code, message, plugin, location });
    layout!(out, ColumnRef { name, text, number, is_text, reserved });
    layout!(out, SampleRef { prompt, completion, ended, reserved, columns });
    line!(out, "\nstruct Status size {} align {}", size_of::<Status>(), align_of::<Status>());
}

fn tables(out: &mut String) {
    table(out, "root", <PluginRootRef as StableAbi>::LAYOUT);
    table(out, "objective", <ObjectiveTableRef as StableAbi>::LAYOUT);
    table(out, "backend", <BackendTableRef as StableAbi>::LAYOUT);
    table(out, "reward", <RewardTableRef as StableAbi>::LAYOUT);
}

/// The slots of the table that a reference points to, in order, with their signatures.
fn table(out: &mut String, name: &str, reference: &'static TypeLayout) {
    let mut layout = reference;
    while !layout.is_prefix_kind() {
        let field = layout.get_fields().into_iter().flatten().chain(layout.phantom_fields()).next();
        layout = field.unwrap_or_else(|| panic!("no table under {name}")).layout();
    }
    line!(out, "\ntable {name}");
    for (slot, field) in layout.get_fields().into_iter().flatten().enumerate() {
        let signature = match field.function_range().iter().next() {
            // Which parameters share a lifetime does not belong to the layout.
            Some(function) => function.to_string().split("lifetime indices").next().unwrap_or_default().to_owned(),
            None => field.full_type().to_string(),
        };
        let signature = signature.split_whitespace().collect::<Vec<_>>().join(" ");
        line!(out, "  {slot:>4} {}: {signature}", field.name());
    }
}

fn numbers(out: &mut String) {
    let mut section = |name: &str, values: Vec<(i64, &str)>| {
        line!(out, "\n{name}");
        values.iter().for_each(|(value, meaning)| line!(out, "  {value:>4} {meaning}"));
    };
    section("error codes", Code::ALL.iter().map(|(c, name)| (c.0.into(), *name)).collect());
    section("dtypes", DType::ALL.iter().map(|(d, name)| (d.0.into(), *name)).collect());
    let kinds = [(Attr::INT, "INT"), (Attr::FLOAT, "FLOAT"), (Attr::BOOL, "BOOL")];
    section("attribute kinds", kinds.iter().map(|(k, name)| (i64::from(*k), *name)).collect());
    let roles = [
        (wire::ROLE_ARRAY, "ARRAY"),
        (wire::ROLE_TERM, "TERM"),
        (wire::ROLE_COTANGENT, "COTANGENT"),
        (wire::ROLE_METRIC, "METRIC"),
    ];
    section("array roles", roles.iter().map(|(r, name)| (i64::from(*r), *name)).collect());
    let scopes =
        [(Scope::TOKEN, "TOKEN"), (Scope::SEQUENCE, "SEQUENCE"), (Scope::BATCH, "BATCH"), (Scope::LIST, "LIST")];
    section("scopes", scopes.iter().map(|(s, name)| (i64::from(s.0), *name)).collect());
    let verdicts = [(Verdict::CONTINUE, "CONTINUE"), (Verdict::END_ROLLOUT, "END_ROLLOUT"), (Verdict::STOP, "STOP")];
    section("verdicts", verdicts.iter().map(|(v, name)| (i64::from(v.0), *name)).collect());
    section("NormKind", NormKind::ALL.iter().map(|(k, name)| (k.0, *name)).collect());
    section("ActivationKind", ActivationKind::ALL.iter().map(|(k, name)| (k.0, *name)).collect());
    section("MaskKind", MaskKind::ALL.iter().map(|(k, name)| (k.0, *name)).collect());
    section("flat parameter alignment, in elements", vec![(FLAT_ALIGN as i64, "")]);
}

fn texts(out: &mut String) {
    let mut section = |name: &str, values: &[&str]| line!(out, "\n{name}: {}", values.join(", "));
    section("plugin kinds", &[kind::OBJECTIVE, kind::BACKEND, kind::REWARD]);
    section("data kinds", DataKind::ALL);
    section("statistics", Statistic::ALL);
    section("normalisers", Normaliser::ALL);
    section("reductions", Reduction::ALL);
    section("attention masks", AttentionMask::ALL);
    section("values of a reward's columns", ColumnValue::ALL);
    section("arrays", ARRAYS);
    section("roles of arrays, each with a dot", ROLES);
    section("arrays of ratings", &[ratings::SCORE, ratings::PART, ratings::SPANS]);
    section("keys of the host in [[objective]]", OBJECTIVE_KEYS);
    section("keys of the host in [[reward]]", REWARD_KEYS);
    section("keys of the host in [backend]", BACKEND_KEYS);
    section(
        "beginnings of names that later hosts may add: keys, arrays, metrics",
        &[RESERVED_PREFIX, "host.", "host/"],
    );
}

const ARRAYS: &[&str] = &[
    names::OFFSETS,
    names::TARGET,
    names::MASK,
    names::POSITION,
    names::GROUP,
    names::SIDE,
    names::COLUMN,
    names::REWARD,
    names::ENDED,
    names::REWARD_OF,
    names::SAMPLER_STEP,
    names::KEEP,
    names::REQUEST,
    names::STEP,
    names::STEPS,
    names::COUNTED,
    names::CANDIDATE_IDS,
    names::SEGMENT_END,
    names::LONGEST,
    names::LENGTH,
    "token",
    "row",
    "part",
];

const ROLES: &[&str] = &["policy", "reference", "critic", "teacher", "context", "sampler"];

/// Adds the keys of a description as it crosses, with the JSON types of their values, and those within.
fn keys(out: &mut String, indent: usize, value: &Value) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let (kind, inner) = match value {
            Value::Null => ("null", None),
            Value::Bool(_) => ("bool", None),
            Value::Number(_) => ("number", None),
            Value::String(_) => ("string", None),
            Value::Array(list) => ("list", list.first()),
            Value::Object(_) => ("object", Some(value)),
        };
        line!(out, "{:indent$}{name}: {kind}", "");
        inner.into_iter().for_each(|inner| keys(out, indent + 2, inner));
    }
}

/// The descriptions that cross as JSON, with every field present: a new field does not compile until it is listed here.
fn descriptions(out: &mut String) {
    let given = || GivenNumber::new(4, "top_k");
    let option = || OptionSpec {
        name: String::new(),
        kind: String::new(),
        default: 1.into(),
        min: Some(0.0),
        max: Some(1.0),
        choices: vec![String::new()],
        meaning: String::new(),
    };
    let objective = ObjectiveManifest {
        id: String::new(),
        version: String::new(),
        summary: String::new(),
        formula: String::new(),
        paper: String::new(),
        data: DataKind::TEXT,
        terms: vec![TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "")],
        metrics: vec![MetricSpec { healthy: Some((0.0, 1.0)), ..MetricSpec::new("margin", Reduction::MEAN, "") }],
        options: vec![option()],
        expectations: vec![Expectation::new("nll", "ln_vocab", 0.1, "")],
        coupled: false,
        stop_gradients: vec![StopGradient::new("kl", "")],
    };
    let column = ObjectiveColumn { name: String::new(), per_segment: true, least: Some(0.0), most: Some(1.0) };
    let requirements = Requirements {
        statistics: vec![String::new()],
        linear: false,
        temperature: 1.0,
        coupled: false,
        normalisers: vec![TermNormaliser::new("nll", Normaliser::SEQUENCES)],
        samples: 1,
        whole_groups: true,
        rewards: true,
        reward_names: vec![String::new()],
        window_statistics: false,
        divergence: Some(Divergence::new(0.5, 1.0)),
        candidates: Some(Candidates::new("teacher", 4)),
        attention: AttentionMask::CAUSAL,
        columns: vec![column],
        reserved_ids: vec![given()],
        least_context: Some(given()),
        max_new_tokens: Some(given()),
        requests: true,
        features: vec![String::new()],
    };
    let device = DeviceSpec {
        name: String::new(),
        compiled: true,
        tested: true,
        note: String::new(),
        instruction_set: "avx2".to_owned(),
        same_with_any_threads: true,
    };
    let backend = BackendManifest {
        id: String::new(),
        version: String::new(),
        summary: String::new(),
        devices: vec![device],
        dtypes: vec![String::new()],
        options: Vec::new(),
    };
    let read =
        RewardColumn { name: String::new(), option: String::new(), value: ColumnValue::ANY, may_be_empty: false };
    let reward = RewardManifest {
        id: String::new(),
        version: String::new(),
        summary: String::new(),
        columns: vec![String::new()],
        options: Vec::new(),
        reads: vec![read],
        parts: vec![RewardPart::new("style", "")],
        spans: true,
        features: vec![String::new()],
    };
    for (name, value) in [
        ("objective manifest", serde_json::to_value(objective)),
        ("requirements", serde_json::to_value(requirements)),
        ("backend manifest", serde_json::to_value(backend)),
        ("reward manifest", serde_json::to_value(reward)),
    ] {
        line!(out, "\n{name}, as JSON");
        keys(out, 2, &value.unwrap());
    }
}

fn reserved(out: &mut String) {
    line!(out, "\nreserved arrays of a loss call: {}, {}, {}NAME", wire::RECORD, wire::REPLAY, wire::DETACHED);
}

fn operation(out: &mut String, op: &OpSpec) {
    let need = if op.mandatory { "mandatory" } else { "optional" };
    line!(out, "\nop {} {} v{} {need}", op.id, op.name, op.version);
    op.inputs.iter().chain(op.outputs).for_each(|o| operand(out, o));
    for attr in op.attrs {
        let kind = match attr.kind {
            Attr::INT => "int",
            Attr::FLOAT => "float",
            Attr::BOOL => "bool",
            _ => "unknown",
        };
        let bits = (attr.default)();
        let default =
            if attr.kind == Attr::FLOAT { f64::from_bits(bits).to_string() } else { (bits as i64).to_string() };
        line!(out, "  attr {}: {kind} = {default}", attr.name);
    }
    op.aliases.iter().for_each(|(output, input)| line!(out, "  {output} may be {input}"));
}

fn operand(out: &mut String, o: &OperandSpec) {
    let usage = match o.usage {
        Usage::Input => "in",
        Usage::Output => "out",
        Usage::Update => "update",
    };
    let optional = if o.optional { " optional" } else { "" };
    line!(out, "  {usage} {}: {:?}[{}, {}]{optional}", o.name, o.class, o.dims[0], o.dims[1]);
}
