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
    data::{Document, PackedBatch, TokenSet, Tokenizer, batches::batcher::eval_batches, text::read_running_text},
    device::open::{open, threads},
    error::{Error, Result},
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
            let (count, bytes) = crate::model::size(&config, dtype, 1)?;
            capacity::check(bytes).map_err(|why| {
                Error::request(format!("the model in {}: {count} parameters: {why}", folder.display()))
                    .with_hint("use a smaller model, or a machine with more memory")
            })?;
        }
        let (device, _) = open(&library, &session, dtype, false)?;
        let mut model = Model::from_folder_as(&device, &folder, Outputs::TOKENS)?;
        tokenizer.fit_to_model(&model.config().eos, model.config().vocab)?;
        model.add_eos(tokenizer.eos());
        Ok(Opened { model, tokenizer, folder })
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
    /// A bidirectional model, which reads every token that it would be asked for.
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
        let (documents, _) = read_running_text(paths)?;
        let bytes: u64 = documents.iter().map(|d: &Document| d.text.len() as u64).sum();
        let tokens = TokenSet::load(&documents, &self.tokenizer, None)?;
        let context = self.model.config().context as usize;
        let (mut sum, mut correct, mut count) = (0.0, 0_u64, 0_u64);
        // The token that ends each document occurs nowhere else.
        let (mut of_ends, mut ends) = (0.0, 0_u64);
        let mut each = Vec::new();
        for packed in eval_batches(&tokens, context, self.tokenizer.prefix(), EVAL_TOKENS.max(context), None) {
            let packed = packed?;
            let scores = self.score(&packed)?;
            sum -= scores.logp.iter().sum::<f64>();
            if per_token {
                each.extend(scores.logp.iter().map(|logp| -logp));
            }
            for (logp, target) in scores.logp.iter().zip(&scores.targets) {
                if self.tokenizer.eos() == Some(*target as u32) {
                    of_ends -= logp;
                    ends += 1;
                }
            }
            correct += scores.correct;
            count += scores.targets.len() as u64;
        }
        if count == 0 {
            return Err(Error::request("the text has no token to predict").with_hint("give a longer text"));
        }
        let loss = sum / count as f64;
        let bits_per_byte = |sum: f64| sum / std::f64::consts::LN_2 / bytes.max(1) as f64;
        let text = (count > ends).then(|| (sum - of_ends) / (count - ends) as f64);
        Ok(TextFigures {
            loss,
            perplexity: loss.exp(),
            bits_per_byte: bits_per_byte(sum),
            end_tokens: ends,
            loss_without_end: text,
            perplexity_without_end: text.map(f64::exp),
            bits_per_byte_without_end: text.map(|_| bits_per_byte(sum - of_ends)),
            token_accuracy: correct as f64 / count as f64,
            tokens: count,
            bytes,
            nll_per_token: per_token.then_some(each),
        })
    }
}

impl Opened {
    /// Returns the log-probabilities of the supervised targets of a batch.
    ///
    /// # Errors
    /// Errors of the backend.
    pub fn score(&self, packed: &PackedBatch) -> Result<TokenScores> {
        let rows = supervised_rows(packed);
        let forward = self.model.forward(view(packed), Keep::Nothing)?;
        let request = HeadRequest {
            rows: (rows.len() < packed.len()).then_some(&rows),
            statistics: Statistics { top1: true, ..Statistics::default() },
            ..HeadRequest::new(&packed.targets)
        };
        let stats = self.model.head_stats(&forward, &request)?.stats;
        let targets: Vec<i32> = rows.iter().map(|row| packed.targets[*row as usize]).collect();
        let correct = stats.top1.iter().flatten().zip(&targets).filter(|(a, b)| a == b).count() as u64;
        Ok(TokenScores { logp: stats.logp, targets, correct })
    }
}

/// A model's results for the supervised targets of a batch.
pub struct TokenScores {
    /// Log-probability of each, in nats.
    pub logp: Vec<f64>,
    /// Each target.
    pub targets: Vec<i32>,
    /// How many were the most probable token.
    pub correct: u64,
}

/// Positions evaluated at a time.
pub(crate) const EVAL_TOKENS: usize = 4096;

/// How well a model predicts a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextFigures {
    /// Nats per token, including the end-of-text token that was added to each text.
    pub loss: f64,
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
    /// Tokens predicted.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Negative log-probability of each predicted token in nats, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nll_per_token: Option<Vec<f64>>,
}
