//! `[sweep]`: how the runs of a study are chosen, and by which metric they are compared. `sweep.values` and `[[sweep.arm]]`, whose
//! keys are those of experiments, are read in [`super::draws`].

use crate::keys::{Form, table, words};

table! {
    /// makes the file a study: runs that differ in the keys of sweep.values and in their seed, each in runs_dir/NAME/RUN
    pub struct Written at "sweep": Form::Table, example { seeds = [1, 2, 3] } {
        /// which combinations of values are run: grid takes all of sweep.values, the last key changing fastest; list takes the tables
        /// [[sweep.arm]]; random and latin-hypercube draw sweep.trials of them
        method: Method, Form::Word(Method::WORDS), default "\"grid\"", example "random";
        /// random and latin-hypercube: number of combinations to draw
        trials: usize, Form::Int(1, 1000), example 20;
        /// random and latin-hypercube: seed of the draws; no seed of a run
        seed: u64 = 0, Form::Int(0, i64::MAX), example 7;
        /// seeds of the runs of each combination
        seeds: Vec<u64>, Form::Ints(0, i64::MAX), default "the seed of the experiment alone", example [1, 2, 3];
        /// metric by which combinations are compared, after min: or max: (a loss needs neither), at the end of the runs
        metric: String, Form::Text, default "with rollouts, [[reward]] and eval.generate \"max:eval/reward\", else \"min:eval/loss\"",
            example "max:eval/exact_match";
        /// whether smaller or larger values of sweep.metric are better, instead of min: or max: in front of it
        goal: Goal, Form::Word(Goal::WORDS), default "that of sweep.metric", example "max";
        halving in Option<WrittenHalving>;
    }
}

table! {
    /// stops bad combinations early (successive halving): all train up to a first number of steps; the best 1/factor of them
    /// continue to factor times as many, and so on up to train.steps
    pub struct WrittenHalving at "sweep.halving": Form::Table, example { first_rung = 100 } {
        /// steps of the first rung
        first_rung: u64, Form::POSITIVE_INT, example 100;
        /// the best 1/factor of the combinations of a rung continue to the next one, which has factor times the steps
        factor: u64 = 3, Form::Int(2, 1000), example 2;
        /// metric that decides, as in sweep.metric
        metric: String, Form::Text, default "sweep.metric", example "min:eval/loss";
    }
}

words! {
    /// How combinations are chosen.
    pub enum Method {
        /// Every combination.
        Grid = "grid",
        /// Those that are listed.
        List = "list",
        /// Independent draws.
        Random = "random",
        /// Draws whose values of each key are spread evenly over its range.
        LatinHypercube = "latin-hypercube",
    }
}

impl Method {
    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

words! {
    /// Which values of a metric are better.
    pub enum Goal {
        /// Smaller ones.
        Min = "min",
        /// Larger ones.
        Max = "max",
    }
}
