//! Objectives and a reward whose results break the contract in the way that an option names: each is sound until the step in which
//! its fault occurs.

use plugin_api::{batch::names, objective::Term, prelude::*};

options! {
    /// Options of the odd plugins.
    pub struct OddOptions {
        /// The fault; an unknown word causes none.
        fault: String = "none".to_owned();
        /// The optimizer step (from 1) from which on the fault shows in `prepare` and `loss`.
        at_step: i64 = 1, from 1;
    }
}

/// Shared by both odd objectives: their options, the steps so far, and whether this is still the first window.
struct Odd {
    fault: String,
    at_step: u64,
    steps_done: u64,
}

impl Odd {
    fn new(options: OddOptions) -> Result<Odd> {
        let odd = Odd { fault: options.fault, at_step: options.at_step.unsigned_abs(), steps_done: 0 };
        odd.leave("create");
        Ok(odd)
    }

    fn is(&self, fault: &str) -> bool {
        self.fault == fault && self.steps_done + 1 >= self.at_step
    }

    /// Ends the process in `call`, if the fault requires it.
    fn leave(&self, call: &str) {
        let Some(how) = self.fault.strip_suffix(call).filter(|_| self.steps_done + 1 >= self.at_step) else { return };
        match how {
            "exit-" => std::process::exit(0),
            "exit-2-" => std::process::exit(2),
            "abort-" => std::process::abort(),
            // SAFETY: `_exit` takes any number and reads nothing.
            "quick-exit-" => unsafe { _exit(0) },
            _ => {}
        }
    }

    fn answer(&self, name: &str, scope: Scope, values: Vec<f64>) -> Result<Batch<'static>> {
        Ok(Batch::new().with(name.to_owned(), scope, values))
    }
}

unsafe extern "C" {
    fn _exit(code: i32) -> !;
}

/// Cross-entropy over running text.
pub struct OddText(Odd);

impl ObjectivePlugin for OddText {
    type Options = OddOptions;

    fn manifest() -> ObjectiveManifest {
        let metric = |name, meaning| MetricSpec::new(name, Reduction::MEAN, meaning);
        ObjectiveManifest {
            summary: "Cross-entropy that answers as no objective should, for tests".into(),
            formula: "sum over supervised tokens of -logp".into(),
            terms: vec![
                TermSpec::new("nll", Normaliser::SUPERVISED_TOKENS, "Negative log-likelihood, squared with a `fault`"),
                TermSpec::new("own", Normaliser::CUSTOM, "The same per sequence, there with a `fault` alone"),
            ],
            metrics: vec![metric("sum", "As the term"), metric("ghost", "Never returned")],
            ..Default::default()
        }
    }

    fn create(options: OddOptions) -> Result<Self> {
        Odd::new(options).map(OddText)
    }
}

impl Objective for OddText {
    fn requirements(&self) -> Result<Requirements> {
        self.0.leave("requirements");
        let twice = self.0.fault == "changing-requirements" && self.0.steps_done > 1;
        let statistics = match self.0.fault.as_str() {
            "requires-nothing" => Vec::new(),
            "requires-unknown" => vec!["logits".to_owned()],
            _ if twice => vec!["logp".to_owned(), "lse".to_owned()],
            _ => vec!["logp".to_owned()],
        };
        Ok(Requirements { statistics, linear: self.0.fault == "false-linear", ..Default::default() })
    }

    fn compose(&self, rows: &Batch<'_>, _: u64) -> Result<Option<Batch<'static>>> {
        self.0.leave("compose");
        if !self.0.fault.starts_with("compose-") {
            return Ok(None);
        }
        let ids = rows.get("token")?.iter().take(8).copied().collect::<Vec<f64>>();
        let sequence = |ids: Vec<f64>, mask: f64, row: f64| {
            let (count, mask) = (ids.len() as f64, vec![mask; ids.len()]);
            Batch::new()
                .with(names::OFFSETS, Scope::BATCH, vec![0.0, count])
                .with("token", Scope::TOKEN, ids)
                .with(names::MASK, Scope::TOKEN, mask)
                .with("row", Scope::SEQUENCE, vec![row])
        };
        let row = rows.get("row")?[0];
        Ok(Some(match self.0.fault.as_str() {
            "compose-vocab" => sequence(vec![1.0, 5000.0, 2.0], 1.0, row),
            "compose-fraction" => sequence(vec![1.0, 0.5, 2.0], 1.0, row),
            "compose-long" => sequence(vec![1.0; 5000], 1.0, row),
            "compose-short" => sequence(vec![1.0], 1.0, row),
            "compose-mask" => sequence(ids, 0.5, row),
            "compose-unsupervised" => sequence(ids, 0.0, row),
            "compose-row" => sequence(ids, 1.0, 1e9),
            "compose-reward" => sequence(ids, 1.0, row).with("reward", Scope::SEQUENCE, vec![1.0]),
            "compose-descending" => sequence(ids, 1.0, row).with(names::OFFSETS, Scope::BATCH, vec![0.0, 8.0, 4.0]),
            "compose-offset-nan" => sequence(ids, 1.0, row).with(names::OFFSETS, Scope::BATCH, vec![0.0, f64::NAN]),
            "compose-offset-huge" => sequence(ids, 1.0, row).with(names::OFFSETS, Scope::BATCH, vec![0.0, 1e300]),
            "compose-offset-none" => sequence(ids, 1.0, row).with(names::OFFSETS, Scope::BATCH, vec![]),
            "compose-columns" => {
                let array = |cols, data| plugin_api::batch::Array {
                    name: "row".into(),
                    scope: Scope::SEQUENCE,
                    differentiable: false,
                    cols,
                    data,
                };
                sequence(ids, 1.0, row).with_array(array(0, vec![].into()))
            }
            fault
                if let Some((scope, name)) = fault.strip_prefix("compose-as-").and_then(|as_| as_.split_once('-')) =>
            {
                let (count, scope) = (
                    ids.len(),
                    match scope {
                        "token" => Scope::TOKEN,
                        "sequence" => Scope::SEQUENCE,
                        "batch" => Scope::BATCH,
                        _ => Scope(9),
                    },
                );
                let length = if scope == Scope::TOKEN { count } else { 1 };
                sequence(ids, 1.0, row).with(name.to_owned(), scope, vec![0.0; length])
            }
            "compose-nothing" => Batch::new().with(names::OFFSETS, Scope::BATCH, vec![0.0]),
            _ => sequence(ids, 1.0, row),
        }))
    }

    fn prepare(&mut self, batch: &Batch<'_>) -> Result<Batch<'static>> {
        self.0.leave("prepare");
        let (tokens, sequences) = (batch.tokens()?, batch.sequences()?);
        let odd = &self.0;
        let fault = if odd.steps_done + 1 >= odd.at_step { odd.fault.as_str() } else { "none" };
        match fault {
            "prepare-mask" => odd.answer(names::MASK, Scope::TOKEN, vec![1.0; tokens]),
            "prepare-target" => odd.answer(names::TARGET, Scope::TOKEN, vec![1.0; tokens]),
            "prepare-logp" => odd.answer("logp", Scope::TOKEN, vec![-1.0; tokens]),
            "prepare-short" => odd.answer("own", Scope::TOKEN, vec![1.0; tokens - 1]),
            "prepare-long" => odd.answer("own", Scope::SEQUENCE, vec![1.0; sequences + 1]),
            "prepare-scope" => odd.answer("own", Scope(7), vec![1.0; tokens]),
            "prepare-nan" => odd.answer("own", Scope::SEQUENCE, vec![f64::NAN; sequences]),
            "prepare-keep" => odd.answer("keep", Scope::SEQUENCE, vec![1.0; sequences]),
            "prepare-request" => odd.answer("request", Scope::BATCH, vec![1.0]),
            _ => Ok(Batch::new()),
        }
    }

    fn weigh(&self, batch: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        self.0.leave("weigh");
        let weight = match self.0.fault.as_str() {
            "weigh-zero" => 0.0,
            "weigh-negative" => -1.0,
            "weigh-nan" => f64::NAN,
            _ => batch.sequences()? as f64,
        };
        let own = |name: &str| (name.to_owned(), weight);
        Ok(match self.0.fault.as_str() {
            "weigh-missing" => Vec::new(),
            "weigh-twice" => vec![own("own"), own("own")],
            "weigh-unknown" => vec![own("own"), own("nll")],
            _ => vec![own("own")],
        })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        self.0.leave("loss");
        let (mask, logp) = (batch.mask()?, batch.get("logp")?);
        let each = |of: &dyn Fn(f64) -> f64| -> Vec<f64> {
            mask.iter().zip(logp).map(|(m, x)| if *m == 1.0 { of(*x) } else { 0.0 }).collect()
        };
        let mut nll = Term {
            name: "nll".into(),
            coefficient: 1.0,
            sum: each(&|x| -x).iter().sum(),
            cotangents: vec![("logp".into(), each(&|_| -1.0))],
        };
        let mut loss = Loss::default().metric("sum", nll.sum, mask.iter().sum());
        if self.0.fault.starts_with("weigh") {
            loss.terms.push(Term { name: "own".into(), ..nll.clone() });
        }
        let fault = self.0.fault.as_str();
        match fault {
            _ if !self.0.is(fault) => {}
            "no-terms" => return Ok(Loss::default()),
            "no-cotangents" => nll.cotangents.clear(),
            "term-twice" => loss.terms.push(nll.clone()),
            "cotangent-twice" => nll.cotangents.push(nll.cotangents[0].clone()),
            "not-required" => nll.cotangents.push(("lse".into(), each(&|_| 1.0))),
            "long-cotangent" => nll.cotangents[0].1.push(0.0),
            "false-linear" => {
                nll.sum = each(&|x| x * x).iter().sum();
                nll.cotangents[0].1 = each(&|x| 2.0 * x);
            }
            "nan-cotangent" => {
                let last = mask.iter().rposition(|m| *m == 1.0).unwrap_or(0);
                nll.cotangents[0].1[last] = f64::NAN;
            }
            "infinite-sum" => nll.sum = f64::INFINITY,
            "nan-coefficient" => nll.coefficient = f64::NAN,
            "metric-twice" => loss = loss.metric("sum", 1.0, 1.0),
            "metric-undeclared" => loss = loss.metric("surprise", 1.0, 1.0),
            "metric-weight" => loss.metrics[0].weight = -1.0,
            "metric-nan" => loss.metrics[0].value = f64::NAN,
            "no-gradient" => nll.cotangents[0].1.fill(0.0),
            "prints" => println!("a line of a plugin"),
            "thread-panics" => _ = std::thread::spawn(|| panic!("a thread of a plugin")).join(),
            _ => {}
        }
        loss.terms.push(nll);
        Ok(loss)
    }

    fn after_step(&mut self, _: &[(String, f64)]) -> Result<Verdict> {
        self.0.leave("after_step");
        self.0.steps_done += 1;
        Ok(match self.0.fault.as_str() {
            "verdict" => Verdict(7),
            "end-rollout" => Verdict::END_ROLLOUT,
            _ => Verdict::CONTINUE,
        })
    }

    fn state(&self) -> Result<Vec<u8>> {
        self.0.leave("state");
        Ok(self.0.steps_done.to_le_bytes().to_vec())
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.0.leave("restore");
        let bytes = state.try_into().map_err(|_| Error::new(Code::STATE, "8 bytes were expected"))?;
        match self.0.fault.as_str() {
            "state-refused" => return Err(Error::new(Code::STATE, "these 8 bytes are not mine")),
            "state-lost" => self.0.steps_done = 77,
            _ => self.0.steps_done = u64::from_le_bytes(bytes),
        }
        Ok(())
    }
}

impl Drop for OddText {
    fn drop(&mut self) {
        self.0.leave("destroy");
    }
}

/// A policy gradient with a critic that is read but never trained.
pub struct OddRollouts(Odd);

impl ObjectivePlugin for OddRollouts {
    type Options = OddOptions;

    fn manifest() -> ObjectiveManifest {
        ObjectiveManifest {
            summary: "A policy gradient that answers as no objective should, for tests".into(),
            formula: "sum over supervised tokens of -reward logp".into(),
            data: DataKind::PROMPT,
            terms: vec![TermSpec::new("policy", Normaliser::SUPERVISED_TOKENS, "The surrogate")],
            ..Default::default()
        }
    }

    fn create(options: OddOptions) -> Result<Self> {
        Odd::new(options).map(OddRollouts)
    }
}

impl Objective for OddRollouts {
    fn requirements(&self) -> Result<Requirements> {
        Ok(Requirements::reading(["logp", names::CRITIC_VALUE]))
    }

    fn prepare(&mut self, batch: &Batch<'_>) -> Result<Batch<'static>> {
        let (tokens, sequences) = (batch.tokens()?, batch.sequences()?);
        let advantage: Vec<f64> = batch.mask()?.iter().map(|m| if *m == 1.0 { 1.0 } else { f64::NAN }).collect();
        let made = Batch::new().with("advantage", Scope::TOKEN, advantage);
        let mut keep = vec![1.0; sequences];
        Ok(match self.0.fault.as_str() {
            "keep-half" => {
                keep[1] = 0.5;
                made.with("keep", Scope::SEQUENCE, keep)
            }
            "keep-nan" => {
                keep[1] = f64::NAN;
                made.with("keep", Scope::SEQUENCE, keep)
            }
            "keep-none" => made.with("keep", Scope::SEQUENCE, vec![0.0; sequences]),
            "keep-some" => {
                keep[1] = 0.0;
                made.with("keep", Scope::SEQUENCE, keep)
            }
            "request" => made.with("request", Scope::BATCH, vec![0.5]),
            "group" => made.with(names::GROUP, Scope::SEQUENCE, vec![0.0; sequences]),
            "reward" => made.with(names::REWARD, Scope::SEQUENCE, vec![0.0; sequences]),
            "ended" => made.with(names::ENDED, Scope::SEQUENCE, vec![0.0; sequences]),
            "column" => made.with("column.margin", Scope::SEQUENCE, vec![0.0; sequences]),
            "short" => made.with("advantage", Scope::TOKEN, vec![1.0; tokens - 1]),
            "nan" => made.with("advantage", Scope::TOKEN, vec![f64::NAN; tokens]),
            _ => made,
        })
    }

    fn loss(&self, batch: &Batch<'_>) -> Result<Loss> {
        let tape = batch.tape()?;
        let (logp, value) = (batch.var(&tape, "logp")?, batch.var(&tape, names::CRITIC_VALUE)?);
        let advantage = batch.var(&tape, "advantage")?;
        Loss::new().term(&tape, "policy", 1.0, (-(advantage * logp) + 0.0 * value).masked_sum(batch.mask()?))
    }

    fn after_step(&mut self, _: &[(String, f64)]) -> Result<Verdict> {
        Ok(match self.0.fault.as_str() {
            "verdict" => Verdict(u32::MAX),
            "end-rollout" => Verdict::END_ROLLOUT,
            _ => Verdict::CONTINUE,
        })
    }
}

/// A reward that breaks its contract in the way that the option names.
pub struct OddReward(Odd);

impl RewardPlugin for OddReward {
    type Options = OddOptions;

    fn manifest() -> RewardManifest {
        RewardManifest { summary: "A reward as none should be, for tests".into(), ..Default::default() }
    }

    fn create(options: OddOptions) -> Result<Self> {
        Odd::new(options).map(OddReward)
    }
}

impl Reward for OddReward {
    fn score(&self, samples: &[Sample]) -> Result<Vec<f64>> {
        self.0.leave("score");
        let sound = || samples.iter().map(|sample| sample.completion.len() as f64).collect::<Vec<f64>>();
        Ok(match self.0.fault.as_str() {
            "equal" => vec![0.5; samples.len()],
            "short" => vec![0.5; samples.len() - 1],
            "nan" => vec![f64::NAN; samples.len()],
            "column" => return Err(Error::new(Code::ARRAY, "the row has no `hidden`")),
            "prints" => {
                println!("a line of a reward");
                sound()
            }
            _ => sound(),
        })
    }
}

export_objective!("odd", OddText);
export_objective!("odd-rollouts", OddRollouts);
export_reward!("odd-reward", OddReward);
