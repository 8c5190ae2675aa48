//! jinja2's filters for lists, dictionaries and iterators.

use std::cmp::Ordering;
use std::sync::Arc;

use super::args::Args;
use crate::data::jinja::equality::any_equals;
use crate::data::jinja::error::Evaluated;
use crate::data::jinja::meter::{Meter, TEXT};
use crate::data::jinja::read::ast::Operator;
use crate::data::jinja::render::Renderer;
use crate::data::jinja::value::{Value, View};

/// A stable sort by keys of one type.
///
/// # Errors
/// Keys that cannot be ordered, as in Python.
pub fn sort_by<T>(items: &mut [T], key: impl Fn(&T) -> &Value, meter: &Meter) -> Evaluated<()> {
    let mut failed = None;
    items.sort_by(|a, b| match key(a).compare(key(b), meter) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    failed.map_or(Ok(()), Err)
}

fn folded(value: Value, case_sensitive: bool) -> Value {
    match value {
        Value::Str(text) if !case_sensitive => Value::str(text.to_lowercase()),
        other => other,
    }
}

fn truth(value: Option<Value>) -> bool {
    value.is_some_and(|value| value.truth())
}

fn none_is_absent(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !matches!(value, Value::None))
}

impl Renderer {
    pub fn sequence_filter(&mut self, name: &str, value: Value, args: Args) -> Evaluated<Value> {
        match name {
            "first" | "last" | "length" | "count" | "list" | "items" | "reverse" => {
                let [] = args.bind(name, [])?;
                self.plain_sequence(name, &value)
            }
            "join" => {
                let [separator, attribute] = args.bind(name, ["d", "attribute"])?;
                let separator = separator.map_or(Ok("".into()), |separator| self.print(&separator))?;
                let attribute = none_is_absent(attribute);
                let mut out = String::new();
                for (number, item) in self.items(&value)?.into_iter().enumerate() {
                    let separator = if number == 0 { "" } else { &*separator };
                    out.push_str(separator);
                    let item = self.lookup(item, attribute.as_ref(), None)?;
                    let item = self.print(&item)?;
                    out.push_str(&item);
                    self.grows(out.len(), item.len() + separator.len())?;
                }
                Ok(Value::str(out))
            }
            "map" => self.map(&value, args),
            "select" | "reject" | "selectattr" | "rejectattr" => self.select(name, &value, args),
            "sort" => {
                let [reverse, case_sensitive, attribute] =
                    args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
                let attributes = attributes(none_is_absent(attribute));
                let mut keyed = Vec::new();
                for item in self.items(&value)? {
                    keyed.push((self.keys(&item, &attributes, truth(case_sensitive.clone()))?, item));
                }
                self.sorted(keyed, truth(reverse)).map(Value::list)
            }
            "dictsort" => {
                let [case_sensitive, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"])?;
                let place = match &by {
                    None => 0,
                    Some(Value::Str(by)) if &**by == "key" => 0,
                    Some(Value::Str(by)) if &**by == "value" => 1,
                    Some(_) => return Err("You can only sort by either \"key\" or \"value\"".into()),
                };
                let Value::Dict(dict) = &value else { return Err("dictsort needs a dict".into()) };
                self.spend(dict.len())?;
                let case_sensitive = truth(case_sensitive);
                let keyed = dict.iter().map(|(key, value)| {
                    let by = if place == 0 { key } else { value };
                    (folded(by.clone(), case_sensitive), Value::tuple(vec![key.clone(), value.clone()]))
                });
                let keyed = keyed.collect();
                self.sorted(keyed, truth(reverse)).map(Value::list)
            }
            "unique" => {
                let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
                let (attribute, case_sensitive) = (none_is_absent(attribute), truth(case_sensitive));
                let (mut seen, mut kept): (Vec<Value>, Vec<Value>) = Default::default();
                for item in self.items(&value)? {
                    let key = folded(self.lookup(item.clone(), attribute.as_ref(), None)?, case_sensitive);
                    if !any_equals(&seen, &key, &self.meter)? {
                        seen.push(key);
                        kept.push(item);
                    }
                }
                Ok(Value::iterator(kept))
            }
            "min" | "max" => {
                let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
                let (attribute, case_sensitive) = (none_is_absent(attribute), truth(case_sensitive));
                let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
                let mut best: Option<(Value, Value)> = None;
                for item in self.items(&value)? {
                    let key = folded(self.lookup(item.clone(), attribute.as_ref(), None)?, case_sensitive);
                    if match &best {
                        Some((best, _)) => key.compare(best, &self.meter)? == Some(wanted),
                        None => true,
                    } {
                        best = Some((key, item));
                    }
                }
                let empty = || Value::undefined("No aggregated item, sequence was empty.".into());
                Ok(best.map_or_else(empty, |(_, item)| item))
            }
            "sum" => {
                let [attribute, start] = args.bind(name, ["attribute", "start"])?;
                let attribute = none_is_absent(attribute);
                let mut sum = start.unwrap_or(Value::Int(0));
                for item in self.items(&value)? {
                    let item = self.lookup(item, attribute.as_ref(), None)?;
                    sum = self.binary(Operator::Add, &sum, &item)?;
                }
                Ok(sum)
            }
            "groupby" => self.group_by(&value, args),
            "batch" => {
                let [size, fill] = args.bind(name, ["linecount", "fill_with"])?;
                let size = positive(size, "batch")?;
                let mut batches: Vec<Vec<Value>> = self.items(&value)?.chunks(size).map(<[Value]>::to_vec).collect();
                if let (Some(fill), Some(last)) = (none_is_absent(fill), batches.last_mut()) {
                    self.meter.list(size)?;
                    last.resize(size, fill);
                }
                Ok(Value::iterator(batches.into_iter().map(Value::list).collect()))
            }
            "slice" => {
                let [slices, fill] = args.bind(name, ["slices", "fill_with"])?;
                let (slices, fill) = (positive(slices, "slice")?, none_is_absent(fill));
                self.spend(slices)?;
                let items = self.items(&value)?;
                let (size, extra) = (items.len() / slices, items.len() % slices);
                let mut rest = items.into_iter();
                let parts = (0..slices).map(|number| {
                    let mut part: Vec<Value> = rest.by_ref().take(size + usize::from(number < extra)).collect();
                    part.extend(fill.clone().filter(|_| number >= extra));
                    Value::list(part)
                });
                Ok(Value::iterator(parts.collect()))
            }
            _ => Err(format!("No filter named '{name}'.")),
        }
    }

    fn plain_sequence(&mut self, name: &str, value: &Value) -> Evaluated<Value> {
        Ok(match (name, value) {
            ("length" | "count", value) => {
                if let Value::Str(text) = value {
                    self.spend(text.len() / TEXT)?;
                }
                Value::Int(value.length()? as i128)
            }
            ("list", value) => Value::list(self.items(value)?),
            ("first", Value::Iterator(items)) => {
                let next = items.borrow_mut().next();
                next.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.".into()))
            }
            ("first", value) => {
                let first = match value {
                    Value::List(items) | Value::Tuple(items) | Value::View(_, items) => items.first().cloned(),
                    other => self.items(other)?.into_iter().next(),
                };
                first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.".into()))
            }
            ("last", Value::Iterator(_)) => return Err("'generator' object is not reversible".into()),
            ("last", value) => {
                let last = match value {
                    Value::List(items) | Value::Tuple(items) | Value::View(_, items) => items.last().cloned(),
                    other => self.items(other)?.pop(),
                };
                last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.".into()))
            }
            ("items", Value::Dict(dict)) => {
                self.spend(dict.len())?;
                let pairs = dict.iter().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                Value::iterator(pairs.collect())
            }
            ("items", value) if value.is_undefined() => Value::iterator(Vec::new()),
            ("items", _) => return Err("Can only get item pairs from a mapping.".into()),
            (_, Value::Str(text)) => {
                self.spend(text.len() / 8)?;
                Value::str(text.chars().rev().collect::<String>())
            }
            (_, Value::Iterator(_)) => Value::list(self.items(value)?.into_iter().rev().collect()),
            (_, value) => Value::iterator(self.items(value)?.into_iter().rev().collect()),
        })
    }

    /// The items of a value, counted as work.
    pub fn items(&mut self, value: &Value) -> Evaluated<Vec<Value>> {
        let items = value.items(&self.meter)?;
        self.spend(items.len())?;
        Ok(items)
    }

    /// The attribute of an item, by a path with dots: at each step, an item first, then an attribute.
    fn lookup(&mut self, item: Value, attribute: Option<&Value>, default: Option<&Value>) -> Evaluated<Value> {
        let parts: Vec<Value> = match attribute {
            None => return Ok(item),
            Some(Value::Str(path)) => {
                self.spend(path.len() / 8)?;
                path.split('.').map(part).collect()
            }
            Some(other) => vec![other.clone()],
        };
        let mut item = item;
        for part in parts {
            item = self.subscript(&item, &part)?;
            if let (Some(default), true) = (default, item.is_undefined()) {
                item = default.clone();
            }
        }
        Ok(item)
    }

    fn keys(&mut self, item: &Value, attributes: &[Value], case_sensitive: bool) -> Evaluated<Value> {
        if attributes.is_empty() {
            return Ok(folded(item.clone(), case_sensitive));
        }
        let mut keys = Vec::new();
        for attribute in attributes {
            keys.push(folded(self.lookup(item.clone(), Some(attribute), None)?, case_sensitive));
        }
        Ok(Value::list(keys))
    }

    fn sorted(&mut self, mut keyed: Vec<(Value, Value)>, reverse: bool) -> Evaluated<Vec<Value>> {
        self.spend(keyed.len() * 8)?;
        // Python also keeps the order of equal items when it sorts in reverse.
        if reverse {
            keyed.reverse();
        }
        sort_by(&mut keyed, |(key, _)| key, &self.meter)?;
        if reverse {
            keyed.reverse();
        }
        Ok(keyed.into_iter().map(|(_, item)| item).collect())
    }

    fn map(&mut self, value: &Value, args: Args) -> Evaluated<Value> {
        let Args { mut positional, mut named } = args;
        let mut mapped = Vec::new();
        if positional.is_empty() && named.iter().any(|(name, _)| &**name == "attribute") {
            let mut take = |wanted: &str| {
                let place = named.iter().position(|(name, _)| &**name == wanted);
                place.map(|place| named.remove(place).1)
            };
            let (attribute, default) = (take("attribute"), none_is_absent(take("default")));
            if let Some((name, _)) = named.first() {
                return Err(format!("Unexpected keyword argument '{name}'"));
            }
            for item in self.items(value)? {
                mapped.push(self.lookup(item, attribute.as_ref(), default.as_ref())?);
            }
            return Ok(Value::iterator(mapped));
        }
        if positional.is_empty() {
            return Err("map requires a filter argument".into());
        }
        let Value::Str(filter) = positional.remove(0) else { return Err("map requires the name of a filter".into()) };
        for item in self.items(value)? {
            self.spend(positional.len() + named.len())?;
            let args = Args { positional: positional.clone(), named: named.clone() };
            mapped.push(self.filter(&filter, item, args)?);
        }
        Ok(Value::iterator(mapped))
    }

    fn select(&mut self, name: &str, value: &Value, args: Args) -> Evaluated<Value> {
        let Args { mut positional, named } = args;
        let attribute = if name.ends_with("attr") {
            if positional.is_empty() {
                return Err("Missing parameter for attribute name".into());
            }
            Some(positional.remove(0))
        } else {
            None
        };
        let test: Option<Arc<str>> = match positional.is_empty() {
            true => None,
            false => match positional.remove(0) {
                Value::Str(test) => Some(test),
                _ => return Err(format!("{name} needs the name of a test")),
            },
        };
        let wanted = name.starts_with("select");
        let mut kept = Vec::new();
        for item in self.items(value)? {
            let tested = self.lookup(item.clone(), attribute.as_ref(), None)?;
            let passes = match &test {
                Some(test) => {
                    self.spend(positional.len() + named.len())?;
                    self.test(test, &tested, Args { positional: positional.clone(), named: named.clone() })?
                }
                None => tested.truth(),
            };
            if passes == wanted {
                kept.push(item);
            }
        }
        Ok(Value::iterator(kept))
    }

    fn group_by(&mut self, value: &Value, args: Args) -> Evaluated<Value> {
        let [attribute, default, case_sensitive] = args.bind("groupby", ["attribute", "default", "case_sensitive"])?;
        let (default, case_sensitive) = (none_is_absent(default), truth(case_sensitive));
        let mut keyed = Vec::new();
        for item in self.items(value)? {
            let key = self.lookup(item.clone(), attribute.as_ref(), default.as_ref())?;
            keyed.push((folded(key.clone(), case_sensitive), Value::tuple(vec![key, item])));
        }
        let sorted = self.sorted(keyed, false)?;
        let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
        for pair in sorted {
            let Value::Tuple(pair) = pair else { continue };
            let key = folded(pair[0].clone(), case_sensitive);
            match groups.last_mut() {
                Some((last, _, items)) if last.equals(&key, &self.meter)? => items.push(pair[1].clone()),
                _ => groups.push((key, pair[0].clone(), vec![pair[1].clone()])),
            }
        }
        let groups = groups.into_iter().map(|(_, key, items)| Value::tuple(vec![key, Value::list(items)]));
        Ok(Value::list(groups.collect()))
    }
}

fn part(text: &str) -> Value {
    text.parse().map_or_else(|_| Value::str(text), Value::Int)
}

fn attributes(attribute: Option<Value>) -> Vec<Value> {
    match attribute {
        Some(Value::Str(names)) => names.split(',').map(Value::str).collect(),
        other => other.into_iter().collect(),
    }
}

fn positive(value: Option<Value>, what: &str) -> Evaluated<usize> {
    let number = value.and_then(|value| value.index()).and_then(|number| usize::try_from(number).ok());
    number.filter(|number| *number > 0).ok_or_else(|| format!("{what} needs a number above 0"))
}

/// A range with its items.
pub fn range(args: Vec<Value>) -> Evaluated<Value> {
    /// The sandbox's limit.
    const MOST: i128 = 100_000;
    let numbers: Vec<i128> = args
        .iter()
        .map(|value| {
            value.defined()?;
            value.index().ok_or_else(|| format!("'{}' object cannot be interpreted as an integer", value.kind()))
        })
        .collect::<Evaluated<_>>()?;
    let (start, stop, step) = match numbers.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] => (*start, *stop, *step),
        _ => return Err("range takes 1 to 3 arguments".into()),
    };
    if step == 0 {
        return Err("range() arg 3 must not be zero".into());
    }
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let length = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    if length > MOST {
        return Err(format!("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MOST})."));
    }
    let items = (0..length).map(|number| Value::Int(start + number * step)).collect();
    Ok(Value::view(View::Range(start, stop, step), items))
}
