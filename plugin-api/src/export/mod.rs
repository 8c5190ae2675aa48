//! The provider's side: turns an author's trait implementations into the tables of [`crate::abi::tables`].
//!
//! Authors call one macro: [`export_objective!`](crate::export_objective), [`export_backend!`](crate::export_backend) or
//! [`export_reward!`](crate::export_reward). The rest of this module is what they expand to.

mod backend;
pub mod guard;
mod instance;
mod objective;
mod reward;

pub use backend::backend_root;
pub use instance::Identity;
pub use objective::objective_root;
pub use reward::reward_root;

pub use crate::abi::root::{CheckTypeLayout, LibHeader, RootResult, root_result};

/// Expands to the header and root symbols of one plugin; used by the other macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    ($kind:expr, $id:literal, $preload:expr, $identity:ident, $root:expr) => {
        #[cfg(panic = "abort")]
        const _: () = {
            compile_error!("a Telos plugin must be built with panic = \"unwind\": an abort would take the host down")
        };

        const _: () = {
            /// The header that the host reads from the file.
            #[unsafe(export_name = concat!("telos_plugin_", $id))]
            #[used]
            static HEADER: $crate::abi::header::PluginHeader =
                $crate::abi::header::PluginHeader::new($kind, $id, env!("CARGO_PKG_VERSION"), $preload);

            pub enum $identity {}
            impl $crate::export::Identity for $identity {
                const ID: &'static str = $id;
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
            }

            extern "C" fn root() -> $crate::export::RootResult {
                $crate::export::root_result($root)
            }

            #[unsafe(export_name = concat!("telos_root_", $id))]
            #[used]
            static ROOT: $crate::export::LibHeader = {
                // SAFETY: `root` returns a `PluginRootRef` and nothing else.
                unsafe {
                    $crate::export::LibHeader::from_constructor::<$crate::abi::tables::PluginRootRef>(
                        root,
                        $crate::export::CheckTypeLayout::Yes,
                    )
                }
            };
        };
    };
}

/// Exports an [`ObjectivePlugin`](crate::objective::ObjectivePlugin) under an id: `export_objective!("focal", Focal);`
#[macro_export]
macro_rules! export_objective {
    ($id:literal, $Type:ty) => {
        $crate::__export_plugin!(
            $crate::manifest::kind::OBJECTIVE,
            $id,
            "",
            Exported,
            $crate::export::objective_root::<Exported, $Type>()
        );
    };
}

/// Exports a [`Backend`](crate::backend::Backend) under an id: `export_backend!("candle", Candle);`, with libraries to
/// open first: `export_backend!("torch", Torch, preload = "global:libtorch_cpu.so");`
#[macro_export]
macro_rules! export_backend {
    ($id:literal, $Type:ty) => {
        $crate::export_backend!($id, $Type, preload = "");
    };
    ($id:literal, $Type:ty, preload = $preload:literal) => {
        $crate::__export_plugin!(
            $crate::manifest::kind::BACKEND,
            $id,
            $preload,
            Exported,
            $crate::export::backend_root::<Exported, $Type>()
        );
    };
}

/// Exports a [`RewardPlugin`](crate::reward::RewardPlugin) under an id: `export_reward!("length", Length);`
#[macro_export]
macro_rules! export_reward {
    ($id:literal, $Type:ty) => {
        $crate::__export_plugin!(
            $crate::manifest::kind::REWARD,
            $id,
            "",
            Exported,
            $crate::export::reward_root::<Exported, $Type>()
        );
    };
}
