//! The values of a sweep, and the combinations of them that are run.

use telos_random::Rng;

use super::table::Method;
use crate::keys::mistake::{Mistake, Place, suggestion};
use crate::keys::tree::{Entry, Node, Value, join};

/// A key of the experiment and the value that a run gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The key, a dotted path.
    pub key: String,
    /// The value, with the place where it was written.
    pub node: Node,
}

/// The runs that a study puts in the place of the last stage.
#[derive(Debug, Default)]
pub struct Swept {
    /// Their names, and the values that each gives to keys; empty for a pipeline that is not a study.
    pub runs: Vec<(String, Vec<Assignment>)>,
    /// Mistakes in the sweep.
    pub mistakes: Vec<Mistake>,
}

/// The values that a key may take.
#[derive(Debug, Clone)]
pub struct Dimension {
    /// The key, a dotted path.
    pub key: String,
    /// Where the key was written.
    pub place: Place,
    /// Its values.
    pub domain: Domain,
}

/// A set of values.
#[derive(Debug, Clone)]
pub enum Domain {
    /// One of several.
    List(Vec<Node>),
    /// A number from a range.
    Range {
        /// The least.
        min: f64,
        /// The greatest.
        max: f64,
        /// Whether the logarithm is uniform.
        log: bool,
        /// Whether only integers are drawn.
        integer: bool,
    },
}

/// The most runs of a study.
pub const MOST_RUNS: usize = 1000;
/// Draws of a combination before it counts as one that was drawn already.
const ATTEMPTS: u64 = 200;
/// The keys of a range.
const RANGE: [&str; 4] = ["min", "max", "scale", "integer"];

/// Reads `sweep.values`: a list or a range for each key, whose dotted path is written in quotes, or as tables.
pub fn dimensions(values: &Node, method: Method, mistakes: &mut Vec<Mistake>) -> Vec<Dimension> {
    let mut found = Vec::new();
    collect(values, "", method, &mut found, mistakes);
    found
}

fn collect(node: &Node, path: &str, method: Method, found: &mut Vec<Dimension>, mistakes: &mut Vec<Mistake>) {
    let shown = join("sweep.values", path);
    let mut refuse =
        |place: &Place, message: String| mistakes.push(Mistake::new(place.clone(), shown.clone(), message));
    match &node.value {
        Value::Table(table) if is_range(&table.0) => match method {
            Method::Grid | Method::List => {
                let message = "a range is drawn from, by method = \"random\" or \"latin-hypercube\"; a grid needs a list of values";
                refuse(&node.place, message.to_owned());
            }
            Method::Random | Method::LatinHypercube => match range(&table.0) {
                Ok(domain) => found.push(Dimension { key: path.to_owned(), place: node.place.clone(), domain }),
                Err((place, message)) => refuse(place.as_ref().unwrap_or(&node.place), message),
            },
        },
        Value::Table(table) => {
            for Entry { key, node } in &table.0 {
                collect(node, &join(path, key), method, found, mistakes);
            }
        }
        Value::List(items) if items.is_empty() => {
            refuse(&node.place, "an empty list; give at least one value, or remove the key".to_owned());
        }
        Value::List(items) => {
            if found.iter().any(|other| other.key == path) {
                refuse(&node.place, "this key is given twice".to_owned());
            }
            for (at, item) in items.iter().enumerate() {
                if let Some(earlier) = items[..at].iter().position(|earlier| same(earlier, item)) {
                    let what = item.found();
                    refuse(
                        &item.place,
                        format!(
                            "{what} is listed twice (value {} and value {at}, counted from 0): two runs would be equal; remove one",
                            earlier
                        ),
                    );
                }
            }
            let domain = Domain::List(items.clone());
            found.push(Dimension { key: path.to_owned(), place: node.place.clone(), domain });
        }
        _ => refuse(
            &node.place,
            format!(
                "expected a list of values or a range {{ min, max }}, found {}; for one value set the key itself",
                node.found()
            ),
        ),
    }
}

fn is_range(entries: &[Entry]) -> bool {
    entries
        .iter()
        .any(|entry| matches!(entry.key.as_str(), "min" | "max") && !matches!(entry.node.value, Value::List(_)))
}

fn range(entries: &[Entry]) -> Result<Domain, (Option<Place>, String)> {
    let at = |entry: &Entry, message: String| (Some(entry.node.place.clone()), message);
    let (mut min, mut max, mut log, mut integer) = (None, None, false, false);
    for entry in entries {
        let number = match entry.node.value {
            Value::Int(number) => Some(number as f64),
            Value::Float(number) if number.is_finite() => Some(number),
            _ => None,
        };
        let found = entry.node.found();
        match (entry.key.as_str(), &entry.node.value) {
            ("min" | "max", _) => {
                let number =
                    number.ok_or_else(|| at(entry, format!("{}: expected a number, found {found}", entry.key)))?;
                *(if entry.key == "min" { &mut min } else { &mut max }) = Some(number);
            }
            ("scale", Value::Text(text)) if text == "log" || text == "linear" => log = text == "log",
            ("scale", _) => return Err(at(entry, format!("scale: expected \"log\" or \"linear\", found {found}"))),
            ("integer", Value::Bool(flag)) => integer = *flag,
            ("integer", _) => return Err(at(entry, format!("integer: expected true or false, found {found}"))),
            (key, _) => return Err(at(entry, format!("unknown key `{key}` of a range; {}", suggestion(key, RANGE)))),
        }
    }
    let (Some(min), Some(max)) = (min, max) else {
        return Err((
            None,
            "a range needs min and max; for example { min = 1e-5, max = 1e-3, scale = \"log\" }".to_owned(),
        ));
    };
    if min >= max {
        return Err((None, format!("min = {min} is not below max = {max}")));
    }
    if log && min <= 0.0 {
        return Err((None, format!("scale = \"log\" needs min above 0, found {min}")));
    }
    if integer && (min.fract() != 0.0 || max.fract() != 0.0) {
        return Err((None, "integer = true needs integers as min and max".to_owned()));
    }
    Ok(Domain::Range { min, max, log, integer })
}

/// Whether two values are equal; 1 and 1.0 are.
pub fn same(a: &Node, b: &Node) -> bool {
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    };
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Table(a), Value::Table(b)) => {
            let found =
                |entry: &Entry| b.0.iter().any(|other| other.key == entry.key && same(&other.node, &entry.node));
            a.0.len() == b.0.len() && a.0.iter().all(found)
        }
        (Value::Int(a), Value::Int(b)) => a == b,
        (a, b) => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

/// Every combination; the last key changes fastest.
///
/// # Errors
/// A message if there are more than a study may have.
pub fn grid(dimensions: &[Dimension]) -> Result<Vec<Vec<Assignment>>, String> {
    let lists = dimensions.iter().map(|one| match &one.domain {
        Domain::List(items) => items.as_slice(),
        Domain::Range { .. } => &[],
    });
    let lists: Vec<&[Node]> = lists.collect();
    let count = lists.iter().try_fold(1_usize, |count, list| count.checked_mul(list.len()));
    if count.is_none_or(|count| count > MOST_RUNS) {
        let product = lists.iter().map(|list| list.len().to_string()).collect::<Vec<_>>().join(" * ");
        return Err(format!("{product} combinations; a study has at most {MOST_RUNS} runs: use method = \"random\""));
    }
    let mut all = vec![Vec::new()];
    for (one, list) in dimensions.iter().zip(lists) {
        let extend = |row: &Vec<Assignment>| {
            let with = |node: &Node| {
                let new = Assignment { key: one.key.clone(), node: node.clone() };
                row.iter().cloned().chain([new]).collect::<Vec<_>>()
            };
            list.iter().map(with).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(extend).collect();
    }
    Ok(all)
}

/// Independent draws, all different. The first draws are the same whatever the number of trials.
///
/// # Errors
/// A message if there are not as many different combinations.
pub fn random(dimensions: &[Dimension], trials: usize, seed: u64) -> Result<Vec<Vec<Assignment>>, String> {
    let mut all: Vec<Vec<Assignment>> = Vec::new();
    for trial in 0..trials {
        let draw = |attempt: u64| {
            let at = |(index, one): (usize, &Dimension)| {
                let share = unit(&mut Rng::new(&[seed, trial as u64, index as u64, attempt]));
                one.at(share)
            };
            dimensions.iter().enumerate().map(at).collect::<Vec<_>>()
        };
        let is_new = |row: &Vec<Assignment>| !all.iter().any(|earlier| equal(earlier, row));
        let Some(row) = (0..ATTEMPTS).map(draw).find(is_new) else {
            return Err(format!(
                "after {trial} draws no further combination was found; at most {trial} are possible, or few more: lower sweep.trials"
            ));
        };
        all.push(row);
    }
    Ok(all)
}

/// Latin hypercube sampling (McKay, Beckman and Conover 1979): each key's range is cut into as many strata of equal probability as
/// there are trials, and each stratum is drawn from once.
///
/// # Errors
/// A message if two draws are equal.
pub fn latin_hypercube(dimensions: &[Dimension], trials: usize, seed: u64) -> Result<Vec<Vec<Assignment>>, String> {
    let mut all = vec![Vec::new(); trials];
    for (index, one) in dimensions.iter().enumerate() {
        let mut random = Rng::new(&[seed, index as u64]);
        let mut strata: Vec<usize> = (0..trials).collect();
        random.shuffle(&mut strata);
        for (row, stratum) in all.iter_mut().zip(strata) {
            row.push(one.at((stratum as f64 + unit(&mut random)) / trials as f64));
        }
    }
    for (at, row) in all.iter().enumerate() {
        if all[..at].iter().any(|earlier| equal(earlier, row)) {
            return Err("two draws are equal, because the keys have few values: lower sweep.trials, use method = \"grid\", or another sweep.seed".to_owned());
        }
    }
    Ok(all)
}

/// Whether two combinations are equal, whatever the order of their keys.
pub fn equal(a: &[Assignment], b: &[Assignment]) -> bool {
    let found = |one: &Assignment| b.iter().any(|other| other.key == one.key && same(&other.node, &one.node));
    a.len() == b.len() && a.iter().all(found)
}

/// Uniform in [0, 1).
fn unit(random: &mut Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

impl Dimension {
    /// The value at `share` of the way through it, from 0 to below 1.
    fn at(&self, share: f64) -> Assignment {
        let node = match &self.domain {
            Domain::List(items) => items[((share * items.len() as f64) as usize).min(items.len() - 1)].clone(),
            Domain::Range { min, max, log, integer } => {
                let value = match (*integer, *log) {
                    (false, false) => min + share * (max - min),
                    (false, true) => (min.ln() + share * (max.ln() - min.ln())).exp(),
                    (true, false) => (min + share * (max - min + 1.0)).floor(),
                    // Each integer has the interval of half a unit on both sides of it.
                    (true, true) => {
                        let (low, high) = ((min - 0.5).max(0.5).ln(), (max + 0.5).ln());
                        (low + share * (high - low)).exp().round()
                    }
                };
                let value = value.clamp(*min, *max);
                let value =
                    if *integer { Value::Int(value as i64) } else { Value::Float(rounded(value).clamp(*min, *max)) };
                Node { value, place: self.place.clone() }
            }
        };
        Assignment { key: self.key.clone(), node }
    }
}

/// Six significant digits: a value that can be read, and written into the name of a folder.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}
