//! Tests of plans: which runs a file asks for, how they are named, and what is refused.

use serde_json::json;

use super::draws::{self, Assignment, Domain};
use super::table::Method;
use super::{Study, names::names};
use crate::config::{Override, Plan};
use crate::keys::tree::{self, Node, Value};

const EXPERIMENT: &str = r#"
model = { layers = 2, dim = 32, heads = 4, context = 64 }
data = { path = "corpus.txt" }
objective = { plugin = "ce" }
seed = 5

[train]
steps = 100
batch = { tokens = 512 }
optimizer = { lr = 1e-3 }
"#;

fn study_with(sweep: &str, sets: &[&str], seeds: Option<u64>) -> Study {
    let overrides: Vec<Override> = sets.iter().map(|set| Override::parse(set).unwrap()).collect();
    let text = format!("{EXPERIMENT}{sweep}");
    match Plan::parse("exp.toml", "exp", &text, &overrides, seeds).unwrap() {
        Plan::Study(study) => *study,
        other => panic!("{other:?}"),
    }
}

fn study(sweep: &str) -> Study {
    study_with(sweep, &[], None)
}

fn run_names(study: &Study) -> Vec<&str> {
    study.runs.iter().map(|run| run.name.as_str()).collect()
}

/// The mistakes of a study, one per line, without what plugins check.
fn mistakes(sweep: &str) -> String {
    let study = study(sweep);
    let drafts = (0..study.pipeline.stages().len()).map(|index| study.pipeline.draft(index)).collect();
    match study.pipeline.finish(drafts) {
        Err(error) => error.report(),
        Ok(_) => String::new(),
    }
}

fn node(text: &str) -> Node {
    let root = tree::parse(&"t.toml".into(), &format!("value = {text}")).unwrap();
    root.find("value").unwrap().clone()
}

/// Catches a grid whose first key changes fastest, seeds that are not the innermost, and arms that count seeds.
#[test]
fn a_grid_has_every_combination_in_order() {
    let study = study(
        "[sweep]\nseeds = [1, 2]\n[sweep.values]\n\"objective.loss\" = [\"a\", \"b\"]\ntrain.optimizer.lr = [1e-3, 0.5]\n",
    );
    let expected = [
        "loss=a,lr=0.001,seed=1",
        "loss=a,lr=0.001,seed=2",
        "loss=a,lr=0.5,seed=1",
        "loss=a,lr=0.5,seed=2",
        "loss=b,lr=0.001,seed=1",
        "loss=b,lr=0.001,seed=2",
        "loss=b,lr=0.5,seed=1",
        "loss=b,lr=0.5,seed=2",
    ];
    assert_eq!(run_names(&study), expected);
    assert_eq!((study.arms.len(), study.stages(), study.pipeline.stages().len()), (4, 0, 8));
    assert_eq!(study.swept_keys(), ["objective.loss", "train.optimizer.lr"]);
    assert_eq!(
        study.arms[1].values,
        [("objective.loss".into(), json!("a")), ("train.optimizer.lr".into(), json!(0.5))]
    );
    // The values are in the trees of the runs.
    assert_eq!(study.pipeline.draft(7).name(), Some("exp/loss=b,lr=0.5,seed=2"));
}

/// Catches seeds that begin at 0 or 1 instead of the file's, a `[sweep]` that is needed for them, and a swept `seed` that makes arms.
#[test]
fn seeds_are_runs_of_one_arm() {
    assert_eq!(run_names(&study_with("", &[], Some(3))), ["seed=5", "seed=6", "seed=7"]);
    assert_eq!(run_names(&study_with("", &["seed=40"], Some(2))), ["seed=40", "seed=41"]);
    let swept = study("[sweep.values]\nseed = [3, 9]\n\"train.steps\" = [10, 20]\n");
    assert_eq!(run_names(&swept), ["steps=10,seed=3", "steps=20,seed=3", "steps=10,seed=9", "steps=20,seed=9"]);
    assert_eq!(swept.arms.len(), 2);
    assert_eq!(
        swept.runs.iter().map(|run| (run.arm, run.seed)).collect::<Vec<_>>(),
        [(0, Some(3)), (1, Some(3)), (0, Some(9)), (1, Some(9))]
    );
    assert_eq!(swept.swept_keys(), ["train.steps"]);
    assert!(mistakes("[sweep]\nseeds = [1, 1]\n").contains("exp.toml:12:1: sweep.seeds: 1 is listed twice"));
    assert!(mistakes("[sweep]\nseeds = [1]\nvalues = { seed = [2, 3] }\n").contains("leave one out"));
}

/// Catches keys of one arm that reach another, and a list that is multiplied.
#[test]
fn a_list_gives_whole_arms() {
    let study = study(
        "[sweep]\nmethod = \"list\"\nseeds = [1]\n[[sweep.arm]]\n\"train.steps\" = 10\n[[sweep.arm]]\ntrain = { steps = 20, optimizer.lr = 0.5 }\n[[sweep.arm]]\n",
    );
    assert_eq!(run_names(&study), ["steps=10,seed=1", "steps=20,lr=0.5,seed=1", "seed=1"]);
    assert_eq!(study.arms[2].name, "default");
    assert!(
        mistakes("[sweep]\nmethod = \"list\"\n[[sweep.arm]]\ntrain.steps = 10\n[[sweep.arm]]\n\"train.steps\" = 10\n")
            .contains("sweep.arm: this arm equals arm 0")
    );
    assert!(mistakes("[sweep]\nmethod = \"list\"\n").contains("expected at least one table [[sweep.arm]]"));
}

fn values(study: &Study, key: &str) -> Vec<f64> {
    let of =
        |arm: &super::Arm| arm.values.iter().find(|(own, _)| own == key).and_then(|(_, value)| value.as_f64()).unwrap();
    study.arms.iter().map(of).collect()
}

const RANGES: &str = "trials = 16\nseed = 3\n[sweep.values]\n\"train.optimizer.lr\" = { min = 1e-5, max = 1e-1, scale = \"log\" }\n\"train.batch.tokens\" = { min = 100, max = 131, integer = true }\n";

/// Catches strata that are drawn from twice, and ones of equal width instead of equal probability on a logarithmic scale.
#[test]
fn a_latin_hypercube_draws_from_every_stratum_once() {
    let study = study(&format!("[sweep]\nmethod = \"latin-hypercube\"\n{RANGES}"));
    let mut strata: Vec<usize> =
        values(&study, "train.optimizer.lr").iter().map(|lr| ((lr.log10() + 5.0) * 4.0) as usize).collect();
    strata.sort_unstable();
    assert_eq!(strata, (0..16).collect::<Vec<_>>());
    let mut pairs: Vec<usize> =
        values(&study, "train.batch.tokens").iter().map(|tokens| (*tokens as usize - 100) / 2).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, (0..16).collect::<Vec<_>>());
    // Keys are drawn independently: that of one does not grow with the other.
    let rates = values(&study, "train.optimizer.lr");
    assert!(!rates.is_sorted(), "{rates:?}");
}

/// Catches integers that are compared as floats, which have fewer digits: their runs would be refused as equal.
#[test]
fn large_integers_that_differ_are_different_values() {
    let same = |a: &str, b: &str| super::draws::same(&node(a), &node(b));
    assert!(!same("9007199254740992", "9007199254740993") && same("1", "1.0") && !same("1", "1.5"));
}

/// Catches draws outside of their range, on a linear scale instead of a logarithmic one, that depend on anything but the seed, and a
/// prefix that changes when trials are added.
#[test]
fn random_draws_depend_on_their_seed_alone() {
    let text = |seed: u64, trials: usize| {
        RANGES.replace("seed = 3", &format!("seed = {seed}")).replace("16", &trials.to_string())
    };
    let draw = |seed, trials| study(&format!("[sweep]\nmethod = \"random\"\n{}", text(seed, trials)));
    let many = draw(3, 200);
    let rates = values(&many, "train.optimizer.lr");
    assert!(rates.iter().all(|lr| (1e-5..=1e-1).contains(lr)));
    let below = rates.iter().filter(|lr| **lr < 1e-3).count();
    assert!((70..=130).contains(&below), "{below} of 200 are in the lower half of the logarithmic range");
    let tokens = values(&many, "train.batch.tokens");
    assert!(tokens.iter().all(|one| (100.0..=131.0).contains(one) && one.fract() == 0.0));
    assert!(tokens.contains(&100.0) && tokens.contains(&131.0));
    assert_eq!(run_names(&draw(3, 8)), run_names(&draw(3, 8)));
    assert_eq!(run_names(&draw(3, 8)), run_names(&many)[..8]);
    assert_ne!(run_names(&draw(4, 8)), run_names(&draw(3, 8)));
    let few = "[sweep]\nmethod = \"random\"\ntrials = 3\nvalues = { \"train.steps\" = [1, 2, 3] }\n";
    let mut steps = values(&study(few), "train.steps");
    steps.sort_by(f64::total_cmp);
    assert_eq!(steps, [1.0, 2.0, 3.0]);
    assert!(mistakes(&few.replace("trials = 3", "trials = 4")).contains("lower sweep.trials"));
}

fn row(values: &[(&str, &str)]) -> Vec<Assignment> {
    values.iter().map(|(key, value)| Assignment { key: (*key).to_owned(), node: node(value) }).collect()
}

/// Catches a name that leaves the study's folder, that a shell interprets, that two runs share on a disk that ignores case, or that is
/// too long for a file system.
#[test]
fn names_are_safe_and_different() {
    let long = format!("\"{}\"", "x".repeat(500));
    let rows = [
        row(&[("model.from", "\"../../etc/$(rm)\"")]),
        row(&[("objective.0.beta", "0.1"), ("objective.1.beta", "1e-9")]),
        row(&[("data.path", "\"A b\"")]),
        row(&[("data.path", "\"a b\"")]),
        row(&[("train.optimizer.betas", "[0.9, 0.99]")]),
        row(&[("a.one", &long), ("a.two", &long), ("a.three", &long), ("a.four", &long), ("a.five", &long)]),
        Vec::new(),
    ];
    let found = names(&rows);
    assert_eq!(found[0], "from=.._.._etc___rm_");
    assert_eq!(found[1], "0.beta=0.1,1.beta=1e-9");
    assert_eq!((found[2].as_str(), found[3].as_str()), ("path=A_b", "path=a_b,arm=3"));
    assert_eq!(found[4], "betas=0.9_0.99");
    assert_eq!(found[6], "default");
    assert!(found[5].len() <= 160 && found[5].ends_with(",arm=5"), "{}", found[5]);
    for name in &found {
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+=,".contains(c)) && !name.starts_with(['.', '-']),
            "{name}"
        );
    }
}

/// Catches a swept value that is not checked like one of the file, is reported at another place, or is reported for each run.
#[test]
fn mistakes_in_values_are_reported_once_at_their_place() {
    let sweep =
        "[sweep]\nseeds = [1, 2, 3]\n[sweep.values]\n\"train.steps\" = [10, \"many\"]\n\"train.stepz\" = [1, 2]\n";
    let report = mistakes(sweep);
    assert!(report.starts_with("error: 2 mistakes in exp.toml\n"), "{report}");
    assert!(report.contains("exp.toml:14:22: train.steps: expected an integer from 0"), "{report}");
    assert!(report.contains("exp.toml:15:18: train.stepz: unknown key; did you mean `steps`?"), "{report}");
    assert!(!report.contains("in stage"), "{report}");
    // What is wrong with the file is reported once too.
    let wrong = mistakes("[sweep]\nseeds = [1, 2]\n[eval]\nevery = -1\n");
    assert!(wrong.starts_with("error: 1 mistake in exp.toml\n") && !wrong.contains("in stage"), "{wrong}");
}

/// Catches a sweep that is run although it is not what its author meant.
#[test]
fn wrong_sweeps_are_refused_with_their_place() {
    let cases = [
        ("[sweep.values]\n\"train.steps\" = []\n", "exp.toml:12:1: sweep.values.train.steps: an empty list"),
        ("[sweep.values]\n\"train.steps\" = 5\n", "expected a list of values or a range"),
        (
            "[sweep.values]\n\"train.steps\" = [1, 2, 1]\n",
            "exp.toml:12:24: sweep.values.train.steps: the integer 1 is listed twice",
        ),
        ("[sweep.values]\n\"train.optimizer.lr\" = [1, 1.0]\n", "is listed twice"),
        ("[sweep.values]\nlr = { min = 1, max = 2 }\n", "a grid needs a list"),
        ("[sweep]\n", "sweep.values: missing"),
        ("[sweep]\nseedz = [1]\n", "exp.toml:12:1: sweep.seedz: unknown key; did you mean `seed`?"),
        ("[sweep]\nmethod = \"gird\"\n", "did you mean \"grid\"?"),
        ("[sweep]\ntrials = 5\nseeds = [1]\n", "sweep.trials: unused"),
        ("[sweep]\nmethod = \"random\"\nvalues = { \"train.steps\" = [1, 2] }\n", "sweep.trials: missing"),
        (
            "[sweep]\nmethod = \"random\"\ntrials = 2\nvalues = { a = { min = 2, max = 1 } }\n",
            "min = 2 is not below max = 1",
        ),
        (
            "[sweep]\nmethod = \"random\"\ntrials = 2\nvalues = { a = { min = 0, max = 1, scale = \"log\" } }\n",
            "needs min above 0",
        ),
        (
            "[sweep]\nmethod = \"random\"\ntrials = 2\nvalues = { a = { min = 0, max = 1, scal = \"log\" } }\n",
            "did you mean `scale`?",
        ),
        ("[sweep]\nseeds = [1]\nmetric = \"eval/reward\"\n", "or set sweep.goal"),
        ("[sweep]\nseeds = [1]\ngoal = \"max\"\n", "sweep.goal: unused"),
        ("[sweep]\nseeds = [1]\nmetric = \"max:eval/x\"\ngoal = \"max\"\n", "sweep.goal: unused"),
        ("[sweep.values]\nname = [\"a\", \"b\"]\n", "the runs of a study are named by their values"),
        ("[sweep.values]\nruns_dir = [\"a\", \"b\"]\n", "runs_dir: must be set above the stages"),
        (
            "[sweep]\nseeds = [1]\nhalving = { factor = 1 }\n",
            "sweep.halving.factor: expected an integer from 2 to 1000",
        ),
    ];
    for (sweep, expected) in cases {
        let report = mistakes(sweep);
        assert!(report.contains(expected), "{expected:?} is missing for {sweep}:\n{report}");
    }
    let tens = ["train.steps", "seed", "eval.every", "eval.tokens"]
        .map(|key| format!("\"{key}\" = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"));
    assert!(mistakes(&format!("[sweep.values]\n{}", tens.concat())).contains("10 * 10 * 10 * 10 combinations"));
}

/// Catches `--set` that does not reach the sweep or the experiment, and one that takes a swept value's place.
#[test]
fn overrides_reach_the_sweep_and_its_experiment() {
    let sweep = "[sweep]\nseeds = [1]\n[sweep.values]\n\"train.steps\" = [10, 20]\n";
    let study = study_with(sweep, &["sweep.seeds=[4]", "train.optimizer.lr=0.5", "name=other"], None);
    assert_eq!(run_names(&study), ["steps=10,seed=4", "steps=20,seed=4"]);
    assert_eq!(study.pipeline.draft(0).name(), Some("other/steps=10,seed=4"));
}

/// Catches a sweep of the first stage, stages that are run for every arm, and a model of an earlier stage that is not found.
#[test]
fn the_last_stage_of_a_pipeline_is_swept() {
    let text = "data = { source = \"synthetic\" }\n[train]\nbatch = { tokens = 64 }\noptimizer = { lr = 1e-3 }\nsteps = 5\n\
        [sweep]\nseeds = [1, 2]\n\
        [[stage]]\nname = \"pre\"\nmodel = { layers = 1, dim = 16, heads = 2, context = 16 }\nobjective = { plugin = \"ce\" }\n\
        [[stage]]\nname = \"sft\"\nmodel.from = \"stage:pre\"\nobjective = { plugin = \"sft\" }\n";
    let Plan::Study(study) = Plan::parse("p.toml", "p", text, &[], None).unwrap() else { panic!("not a study") };
    let names: Vec<&str> = study.pipeline.stages().iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!((names, study.stages()), (vec!["pre", "seed=1", "seed=2"], 1));
    assert!(study.pipeline.stages()[1..].iter().all(|stage| stage.inputs.len() == 1 && stage.inputs[0].stage == 0));
}

/// Catches integers of a logarithmic range of which the ends are drawn less often than they should, and a range that is not a range.
#[test]
fn ranges_are_read_with_their_scale() {
    let mut found = Vec::new();
    let dimensions = draws::dimensions(
        &node("{ a.b = { min = 1, max = 3, scale = \"log\", integer = true }, c = [true] }"),
        Method::Random,
        &mut found,
    );
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(dimensions.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["a.b", "c"]);
    assert!(matches!(dimensions[0].domain, Domain::Range { min: 1.0, max: 3.0, log: true, integer: true }));
    let drawn = draws::random(&dimensions, 3, 0).unwrap();
    let mut drawn: Vec<Value> = drawn.into_iter().map(|row| row[0].node.value.clone()).collect();
    drawn.sort_by_key(|value| format!("{value:?}"));
    assert_eq!(drawn, [Value::Int(1), Value::Int(2), Value::Int(3)]);
}
