//! A saved model opened for use: generation and evaluation outside of a run.

use std::path::{Path, PathBuf};

use plugin_api::{
    backend::{DType, SessionOptions},
    manifest::kind,
    options::OptionMap,
};
use serde::Serialize;

use crate::{
    capacity,
    data::{
        Document, Examples, PackedBatch, TokenSet, Tokenizer, batches::batcher::eval_batches, text::read_running_text,
    },
    device::open::{open, threads},
    error::{Error, Result},
    inference::tasks::spread::ratio,
    model::{BatchView, HeadRequest, Keep, Model, ModelConfig, Outputs, Statistics},
    objectives::{batch_arrays::supervised_rows, micro_batch::view},
    plugins::Registry,
    runs::breadcrumb,
    setup::named::{model_folder, tokenizer_folder},
};

/// The backend to compute with.
#[derive(Debug, Clone)]
pub struct BackendChoice {
    /// Id of the backend plugin.
    pub plugin: String,
    /// Device, by the backend's name for it.
    pub device: String,
    /// Compute dtype: f32, bf16, f64.
    pub dtype: String,
    /// Threads; 0: all cores.
    pub threads: usize,
    /// Folders to search for plugins.
    pub folders: Vec<PathBuf>,
}

/// A model with its tokenizer.
pub struct Opened {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// The folder it was read from.
    pub folder: PathBuf,
}

impl Opened {
    /// Opens the model of a run, a checkpoint or a Hugging Face folder.
    ///
    /// # Errors
    /// Request errors that name folder, file, tensor, plugin or device.
    pub fn open(path: &Path, backend: &BackendChoice) -> Result<Opened> {
        Opened::open_as(path, backend, Outputs::TOKENS)
    }

    /// As [`Opened::open`], with these heads.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub fn open_as(path: &Path, backend: &BackendChoice, outputs: Outputs) -> Result<Opened> {
        let folder = model_folder(path)?;
        let mut tokenizer = Tokenizer::open(&tokenizer_folder(&folder)?)?;
        let registry = Registry::discover(&backend.folders);
        let library = breadcrumb::within(&backend.plugin, "open", || registry.load(kind::BACKEND, &backend.plugin))?;
        let dtype = DType::from_name(&backend.dtype).unwrap_or(DType::F32);
        let manifest = breadcrumb::within(&backend.plugin, "manifest", || library.backend_manifest())?;
        if !manifest.dtypes.contains(&dtype.to_string()) {
            let message =
                format!("backend \"{}\" computes in {}, not in {dtype}", backend.plugin, manifest.dtypes.join(", "));
            return Err(Error::request(message).with_hint("choose another --dtype or --backend"));
        }
        let options: OptionMap = manifest.options.iter().map(|o| (o.name.clone(), o.default.clone())).collect();
        let session =
            SessionOptions { device: backend.device.clone(), threads: threads(backend.threads), tag: 1, options };
        let config = ModelConfig::from_folder(&folder)?;
        if backend.device == "cpu" {
            let (count, bytes) = crate::model::size(&config, dtype, crate::model::Copies::Trained(1))?;
            capacity::check(bytes).map_err(|why| {
                Error::request(format!("the model in {}: {count} parameters: {why}", folder.display()))
                    .with_hint("use a smaller model, or a machine with more memory")
            })?;
        }
        let (device, _) = open(&library, &session, dtype, false)?;
        let mut model = Model::from_folder_as(&device, &folder, outputs)?;
        tokenizer.fit_to_model(&model.config().eos, model.config().vocab)?;
        model.add_eos(tokenizer.eos());
        Ok(Opened { model, tokenizer, folder })
    }

    /// Opens a reward model of whole answers.
    ///
    /// # Errors
    /// As [`Opened::open`]; a model that is not a reward model, or one that scores segments.
    pub fn open_reward_model(path: &Path, backend: &BackendChoice) -> Result<Opened> {
        let folder = model_folder(path)?;
        let config = ModelConfig::from_folder(&folder)?;
        let place = folder.display();
        if config.outputs.tokens || !config.outputs.scalar {
            return Err(Error::request(format!("{place} is not a reward model: it has no scalar head of its own"))
                .with_hint("name a model that the objective `reward` trained"));
        }
        if config.segment_separator.is_some() {
            let what = format!("{place} is a process reward model, which scores segments and not answers");
            return Err(Error::request(what).with_hint("name a reward model of whole answers"));
        }
        Opened::open_as(path, backend, Outputs::SCALAR)
    }

    /// Returns the logits after the last token of `tokens`.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn next_logits(&self, tokens: &[i32]) -> Result<Vec<f64>> {
        let length = i32::try_from(tokens.len()).map_err(|_| Error::request("the prompt is too long"))?;
        let positions: Vec<i32> = (0..length).collect();
        let batch = BatchView { tokens, positions: &positions, offsets: &[0, length], prompts: &[length] };
        let forward = self.model.forward(batch, Keep::Nothing)?;
        let last = self.model.gather(forward.hidden(), &[length - 1])?;
        self.model.logits(&last)?.to_vec()
    }

    /// Checks that the model predicts tokens that it has not read.
    ///
    /// # Errors
    /// A bidirectional model, which reads the tokens that it would have to predict.
    pub(super) fn check_predicts(&self) -> Result<()> {
        if self.model.config().continues_texts() {
            return Ok(());
        }
        let what = format!(
            "the attention mask of {} is bidirectional: it reads the tokens that it would predict",
            self.folder.display()
        );
        Err(Error::request(what).with_hint("evaluate it in a run, by the objective that it was trained with"))
    }

    /// Measures the loss on whole texts; with `per_token`, also returns that of each token.
    ///
    /// # Errors
    /// Text that is missing, empty or not UTF-8; rows, tables and experiments; errors of the backend.
    pub fn evaluate(&self, paths: &[String], per_token: bool) -> Result<TextFigures> {
        self.check_predicts()?;
        let (documents, sources) = read_running_text(paths)?;
        let bytes: u64 = documents.iter().map(|d: &Document| d.text.len() as u64).sum();
        let tokens = TokenSet::load(&documents, &self.tokenizer, None)?;
        let mut each = Vec::new();
        let mut of_documents = vec![Sums::default(); documents.len()];
        self.score_all(&tokens, &mut |score| {
            if per_token {
                each.push(-score.logp);
            }
            // The token that ends each document occurs nowhere else.
            let is_end = self.tokenizer.eos() == Some(score.target);
            let sums = of_documents.get_mut(score.row as usize);
            sums.into_iter().for_each(|sums| sums.add(-score.logp, is_end, score.is_top));
        })?;
        let mut all = Sums::default();
        of_documents.iter().for_each(|sums| all.extend(sums));
        if all.tokens == 0 {
            return Err(Error::request("the text has no token to predict").with_hint("give a longer text"));
        }
        let by_document = |of: fn(&Sums) -> f64| -> Vec<(f64, f64)> {
            of_documents.iter().filter(|sums| sums.tokens > 0).map(|sums| (of(sums), sums.tokens as f64)).collect()
        };
        let (loss, loss_stderr) = ratio(&by_document(|sums| sums.nats));
        let (_, token_accuracy_stderr) = ratio(&by_document(|sums| sums.top as f64));
        let text = all.loss_without_end();
        let document = |(at, sums): (usize, &Sums)| DocumentFigures {
            document: sources
                .get(at)
                .filter(|_| sources.len() == documents.len())
                .map_or_else(|| format!("document {}", at + 1), |source| source.path.display().to_string()),
            loss: sums.nats / sums.tokens.max(1) as f64,
            perplexity: (sums.nats / sums.tokens.max(1) as f64).exp(),
            loss_without_end: sums.loss_without_end(),
            perplexity_without_end: sums.loss_without_end().map(f64::exp),
            bits_per_byte: bits_per_byte(sums.nats, documents[at].text.len() as u64),
            tokens: sums.tokens,
            bytes: documents[at].text.len() as u64,
        };
        Ok(TextFigures {
            loss,
            loss_stderr,
            perplexity: loss.exp(),
            bits_per_byte: bits_per_byte(all.nats, bytes),
            end_tokens: all.ends,
            loss_without_end: text,
            perplexity_without_end: text.map(f64::exp),
            bits_per_byte_without_end: text.map(|_| bits_per_byte(all.nats - all.nats_of_ends, bytes)),
            token_accuracy: all.top as f64 / all.tokens as f64,
            token_accuracy_stderr,
            tokens: all.tokens,
            bytes,
            documents: of_documents.iter().enumerate().filter(|(_, sums)| sums.tokens > 0).map(document).collect(),
            nll_per_token: per_token.then_some(each),
        })
    }
}

impl Opened {
    /// Calls `take` with the score of every supervised target of `data`, in order.
    ///
    /// # Errors
    /// Data that cannot be packed; errors of the backend.
    pub(super) fn score_all(&self, data: &dyn Examples, take: &mut dyn FnMut(TokenScore)) -> Result<()> {
        let context = self.model.config().context as usize;
        for packed in eval_batches(data, context, self.tokenizer.prefix(), EVAL_TOKENS.max(context), None) {
            let found = self.score(&packed?)?;
            for (at, logp) in found.logp.iter().enumerate() {
                let (target, is_top) = (found.targets[at] as u32, found.is_top[at]);
                take(TokenScore { row: found.rows[at], target, logp: *logp, is_top });
            }
        }
        Ok(())
    }

    /// Returns the log-probabilities of the supervised targets of a batch.
    ///
    /// # Errors
    /// Errors of the backend.
    fn score(&self, packed: &PackedBatch) -> Result<TokenScores> {
        let rows = supervised_rows(packed);
        let forward = self.model.forward(view(packed), Keep::Nothing)?;
        let request = HeadRequest {
            rows: (rows.len() < packed.len()).then_some(&rows),
            statistics: Statistics { top1: true, ..Statistics::default() },
            ..HeadRequest::new(&packed.targets)
        };
        let stats = self.model.head_stats(&forward, &request)?.stats;
        let targets: Vec<i32> = rows.iter().map(|row| packed.targets[*row as usize]).collect();
        let is_top: Vec<bool> = stats.top1.iter().flatten().zip(&targets).map(|(a, b)| a == b).collect();
        let sequence = |row: &i32| packed.offsets.partition_point(|begin| begin <= row) - 1;
        let rows = rows.iter().map(|row| packed.rows.get(sequence(row)).copied().unwrap_or_default()).collect();
        Ok(TokenScores { logp: stats.logp, targets, is_top, rows })
    }
}

/// A model's result for a supervised target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TokenScore {
    /// The number of the row or document that it belongs to.
    pub row: u64,
    /// The target.
    pub target: u32,
    /// Its log-probability in nats.
    pub logp: f64,
    /// Whether it was the most probable token.
    pub is_top: bool,
}

/// A model's results for the supervised targets of a batch, in the order of [`TokenScore`]'s fields.
struct TokenScores {
    rows: Vec<u64>,
    targets: Vec<i32>,
    logp: Vec<f64>,
    is_top: Vec<bool>,
}

/// Positions evaluated at a time.
pub(crate) const EVAL_TOKENS: usize = 4096;

/// Sums over the predicted tokens of a document.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Negative log-probabilities in nats.
    nats: f64,
    /// Those of tokens that end documents.
    nats_of_ends: f64,
    /// Tokens.
    tokens: u64,
    /// Tokens that end documents.
    ends: u64,
    /// Tokens that were the most probable one.
    top: u64,
}

impl Sums {
    fn add(&mut self, nats: f64, is_end: bool, is_top: bool) {
        self.nats += nats;
        self.tokens += 1;
        self.top += u64::from(is_top);
        if is_end {
            self.nats_of_ends += nats;
            self.ends += 1;
        }
    }

    fn extend(&mut self, other: &Sums) {
        self.nats += other.nats;
        self.nats_of_ends += other.nats_of_ends;
        self.tokens += other.tokens;
        self.ends += other.ends;
        self.top += other.top;
    }

    fn loss_without_end(&self) -> Option<f64> {
        (self.tokens > self.ends).then(|| (self.nats - self.nats_of_ends) / (self.tokens - self.ends) as f64)
    }
}

fn bits_per_byte(nats: f64, bytes: u64) -> f64 {
    nats / std::f64::consts::LN_2 / bytes.max(1) as f64
}

/// How well a model predicts one document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DocumentFigures {
    /// Its file, or its number.
    pub document: String,
    /// Nats per token, including its end-of-text token.
    pub loss: f64,
    /// Exponential of the loss.
    pub perplexity: f64,
    /// Nats per token without that token; absent if there are no other tokens.
    pub loss_without_end: Option<f64>,
    /// Exponential of that loss.
    pub perplexity_without_end: Option<f64>,
    /// Bits per byte of text.
    pub bits_per_byte: f64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
}

/// How well a model predicts a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextFigures {
    /// Nats per token, including the end-of-text token that was added to each text.
    pub loss: f64,
    /// Its standard error, if the documents are a sample; absent for a single one.
    pub loss_stderr: Option<f64>,
    /// Exponential of the loss.
    pub perplexity: f64,
    /// Bits per byte of text.
    pub bits_per_byte: f64,
    /// End-of-text tokens among the tokens predicted.
    pub end_tokens: u64,
    /// Nats per token of the text without these tokens; absent if there are no other tokens.
    pub loss_without_end: Option<f64>,
    /// Exponential of that loss.
    pub perplexity_without_end: Option<f64>,
    /// Bits per byte of the text without these tokens.
    pub bits_per_byte_without_end: Option<f64>,
    /// Share of tokens that were the most probable token.
    pub token_accuracy: f64,
    /// Its standard error, as that of the loss.
    pub token_accuracy_stderr: Option<f64>,
    /// Tokens predicted.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Each document.
    #[serde(skip)]
    pub documents: Vec<DocumentFigures>,
    /// Negative log-probability of each predicted token in nats, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nll_per_token: Option<Vec<f64>>,
}
