//! The check of each law.

use super::{
    COMPLETIONS, Laws,
    fault::{Fault, Outcome, same},
};
use crate::options::{checked, required, within};
use plugin_api::{
    Code, contract,
    export::guard,
    reward::{Rating, Reward, Sample},
};

/// Text that programs often mishandle.
const UNUSUAL: &[(&str, &str)] = &[
    ("a byte order mark", "\u{feff}42"),
    ("emoji of several code points", "👩‍👩‍👧‍👦 42 🇪🇺"),
    ("combining marks", "e\u{301}\u{301}\u{301} A\u{30a}"),
    ("text from right to left", "الجواب هو ٤٢ \u{202e}24\u{202c}"),
    ("no letters", " \t\r\n\u{a0}\u{2028}\u{3000}"),
    ("control characters", "\0\u{1}\u{7f}\u{85}42\u{1b}[31m"),
    ("case that changes its length", "İıßſﬃ ΑΣ"),
    ("the highest code point", "\u{10ffff}"),
    ("brackets and signs", "\\((.*[)}]{3,}$^|?+"),
    ("a number out of range", "1e999999 -0 999999999999999999999999 0x7f NaN inf"),
];

impl Laws {
    pub(super) fn manifest(&self) -> Outcome {
        let m = &self.manifest;
        let mut wrong = Vec::new();
        if m.summary.trim().is_empty() {
            wrong.push("no summary".to_owned());
        }
        for (i, name) in m.columns.iter().enumerate() {
            if name.trim().is_empty() || m.columns[..i].contains(name) {
                wrong.push(format!("column {name:?} has no name or is declared twice"));
            }
        }
        wrong.extend(contract::reward_parts(m));
        wrong.extend(contract::option_names(&m.options, contract::REWARD_KEYS));
        for part in m.parts.iter().filter(|part| part.meaning.trim().is_empty()) {
            wrong.push(format!("part `{}` has no meaning", part.name));
        }
        for option in &m.options {
            if option.meaning.trim().is_empty() {
                wrong.push(format!("option `{}` has no meaning", option.name));
            }
            if !option.default.is_null() && !within(option, &option.default) {
                wrong.push(format!("option `{}`: its default {} is not legal", option.name, option.default));
            }
        }
        if wrong.is_empty() { Ok(String::new()) } else { Err(Fault::of(None, wrong.join("; "))) }
    }

    pub(super) fn legal(&self) -> Outcome {
        let base = if self.instance().is_ok() {
            self.options.clone()
        } else {
            required(&self.manifest.options, &self.options)
        };
        let tried = checked(&self.manifest.options, &base, &|options| (self.create)(options).map(drop));
        Ok(format!("{} illegal values refused", tried.map_err(|why| Fault::of(None, why))?))
    }

    pub(super) fn finite(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        for sample in &samples {
            self.scores(reward.as_ref(), std::slice::from_ref(sample))?;
        }
        let scores = self.scores(reward.as_ref(), &samples)?;
        self.scores(reward.as_ref(), &[]).map_err(|fault| fault.within("no sample"))?;
        let (low, high) = scores.iter().fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
        Ok(format!("{} samples score from {low} to {high}", samples.len()))
    }

    pub(super) fn repeatable(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        let first = self.scores(reward.as_ref(), &samples)?;
        let (again, other) =
            (self.scores(reward.as_ref(), &samples)?, self.scores(self.instance()?.as_ref(), &samples)?);
        for (what, found) in [("a second call", again), ("another instance", other)] {
            same(&samples, &first, &found, what)?;
        }
        Ok(String::new())
    }

    pub(super) fn independent(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        let together = self.scores(reward.as_ref(), &samples)?;
        let alone: Vec<f64> = samples
            .iter()
            .map(|sample| Ok(self.scores(reward.as_ref(), std::slice::from_ref(sample))?[0]))
            .collect::<std::result::Result<_, Fault>>()?;
        same(&samples, &together, &alone, "scored alone")?;
        let reversed: Vec<Sample> = samples.iter().rev().cloned().collect();
        let mut backwards = self.scores(reward.as_ref(), &reversed)?;
        backwards.reverse();
        same(&samples, &together, &backwards, "scored in reverse order")?;
        Ok(String::new())
    }

    pub(super) fn columns(&self) -> Outcome {
        let (reward, samples) = (self.instance()?, self.samples());
        let first = self.scores(reward.as_ref(), &samples)?;
        let mut unread = Vec::new();
        for name in self.manifest.declared_columns().iter().map(|column| &column.name) {
            let without: Vec<Sample> = samples
                .iter()
                .map(|s| Sample {
                    columns: s.columns.iter().filter(|(n, _)| n != name).cloned().collect(),
                    ..s.clone()
                })
                .collect();
            match guard::catch("", "score", || self.instance()?.score(&without)) {
                Ok(scores) if scores == first => unread.push(name.clone()),
                Ok(_) => {}
                Err(e) if e.code == Code::PANIC => {
                    return Err(Fault::of(without.first(), format!("without the column `{name}`: {e}")));
                }
                Err(e) if !e.message.contains(name) => {
                    let why = format!("a row without the column `{name}` is refused without its name: {e}");
                    return Err(Fault::of(without.first(), why));
                }
                Err(_) => {}
            }
        }
        Ok(match unread.as_slice() {
            [] => String::new(),
            names => format!("the scores are the same without {}: are they read?", names.join(", ")),
        })
    }

    pub(super) fn empty(&self) -> Outcome {
        let reward = self.instance()?;
        for sample in self.samples().iter().step_by(COMPLETIONS.len()) {
            for ended in [true, false] {
                let empty = Sample { completion: String::new(), ended, ..sample.clone() };
                self.scores(reward.as_ref(), &[empty])?;
            }
        }
        Ok(String::new())
    }

    pub(super) fn unusual(&self) -> Outcome {
        let long = "ab ".repeat(50_000);
        let texts = UNUSUAL.iter().copied().chain([("150,000 characters", long.as_str())]);
        let (mut scored, mut refused) = (0, 0);
        for (what, text) in texts {
            for sample in [true, false].map(|prompt| self.replaced(prompt, text)) {
                let scores = guard::catch("", "score", || self.instance()?.score(std::slice::from_ref(&sample)));
                let broken = match scores {
                    Ok(scores) if scores.len() == 1 && scores[0].is_finite() => {
                        scored += 1;
                        continue;
                    }
                    Ok(scores) => format!("the scores are {scores:?}"),
                    // Such text may be refused with an error.
                    Err(e) if ![Code::PANIC, Code::POISONED, Code::INTERNAL].contains(&e.code) => {
                        refused += 1;
                        continue;
                    }
                    Err(e) => e.to_string(),
                };
                return Err(Fault::of(Some(&sample), format!("{what}: {broken}")));
            }
        }
        Ok(format!("{scored} scored, {refused} refused"))
    }

    pub(super) fn ratings(&self) -> Outcome {
        if !self.manifest.rates() {
            return self.nothing_undeclared();
        }
        let (reward, samples) = (self.instance()?, self.rated_samples());
        let together = self.rated(reward.as_ref(), &samples)?;
        let scores: Vec<f64> = together.iter().map(|rating| rating.score).collect();
        same(&samples, &self.scores(reward.as_ref(), &samples)?, &scores, "`rate` and `score` differ")?;
        let one = |sample| Ok(self.rated(reward.as_ref(), std::slice::from_ref(sample))?.remove(0));
        let alone: Vec<Rating> = samples.iter().map(one).collect::<std::result::Result<_, Fault>>()?;
        let reversed: Vec<Sample> = samples.iter().rev().cloned().collect();
        let mut backwards = self.rated(reward.as_ref(), &reversed)?;
        backwards.reverse();
        let other = self.rated(self.instance()?.as_ref(), &samples)?;
        for (what, found) in
            [("rated alone", alone), ("rated in reverse order", backwards), ("another instance", other)]
        {
            if let Some(at) = together.iter().zip(&found).position(|(a, b)| a != b) {
                let text = format!("{what}: the rating is {:?}, it was {:?}", found[at], together[at]);
                return Err(Fault::of(samples.get(at), text));
            }
        }
        let spans: usize = together.iter().map(|rating| rating.spans.len()).sum();
        Ok(format!("{} parts, {spans} spans", self.manifest.parts.len()))
    }

    /// Refuses parts and spans that the manifest does not declare: the host would never ask for them.
    fn nothing_undeclared(&self) -> Outcome {
        let samples = self.samples();
        // The laws of `score` report its errors.
        let ratings = self.instance()?.rate(&samples).unwrap_or_default();
        match ratings.iter().position(|rating| !rating.parts.is_empty() || !rating.spans.is_empty()) {
            Some(at) => {
                let text = "`rate` returns parts or spans, but the manifest declares neither `parts` nor `spans`";
                Err(Fault::of(samples.get(at), text.to_owned()))
            }
            None => Ok(String::new()),
        }
    }

    /// The samples, and completions whose characters have several bytes each.
    fn rated_samples(&self) -> Vec<Sample> {
        let samples = self.samples();
        let wide = samples
            .iter()
            .take(COMPLETIONS.len())
            .map(|sample| Sample { completion: format!("é👩 {} 👩é", sample.completion), ..sample.clone() });
        let wide: Vec<Sample> = wide.collect();
        samples.into_iter().chain(wide).collect()
    }

    /// The ratings, which the host would accept.
    fn rated(&self, reward: &dyn Reward, samples: &[Sample]) -> std::result::Result<Vec<Rating>, Fault> {
        let ratings = reward.rate(samples).map_err(|e| Fault::of(samples.first(), e.to_string()))?;
        match contract::ratings(&self.manifest, samples, &ratings) {
            Ok(()) => Ok(ratings),
            Err(why) => Err(Fault::of(why.sequence.and_then(|at| samples.get(at)), format!("`rate`: {}", why.text))),
        }
    }

    /// The first sample with `text` as its prompt, or as its completion.
    fn replaced(&self, prompt: bool, text: &str) -> Sample {
        let sample = self.samples().into_iter().next().unwrap_or_default();
        match prompt {
            true => Sample { prompt: text.to_owned(), ..sample },
            false => Sample { completion: text.to_owned(), ..sample },
        }
    }
}
