//! The paths in a piece of code: `use` trees, paths in expressions, types and patterns, and in macros' arguments. Test-only code
//! is skipped.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// A path as written in the code.
#[derive(Clone)]
pub struct Named {
    /// Its parts, without generic arguments: `crate`, `data`, `Batch`. `use data::{self}` ends in `self`, which a module has and a
    /// function of the same name has not.
    pub parts: Vec<String>,
    /// Its line.
    pub line: usize,
}

/// One leaf of a `use` tree.
pub struct Import {
    /// What is imported.
    pub named: Named,
    /// The name that it gets here. `None` for `*`; `_` for a trait without a name.
    pub name: Option<String>,
    /// Whether it is re-exported (`pub use`).
    pub is_public: bool,
}

/// Paths and imports of one module's code.
#[derive(Default)]
pub struct Paths {
    /// Paths outside `use`.
    pub named: Vec<Named>,
    /// Leaves of `use` trees, those inside functions included.
    pub imports: Vec<Import>,
    /// Names of macros that are called.
    pub macros: Vec<Named>,
}

/// Whether an item exists in tests only: `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
pub fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<syn::Meta>().is_ok_and(|predicate| needs_test(&predicate))
        }
        _ => false,
    })
}

fn needs_test(predicate: &syn::Meta) -> bool {
    match predicate {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(needs_test)),
        _ => false,
    }
}

/// The attributes of an item.
pub fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::{
        Const, Enum, ExternCrate, Fn, ForeignMod, Impl, Macro, Mod, Static, Struct, Trait, TraitAlias, Type, Union, Use,
    };
    match item {
        Const(i) => &i.attrs,
        Enum(i) => &i.attrs,
        ExternCrate(i) => &i.attrs,
        Fn(i) => &i.attrs,
        ForeignMod(i) => &i.attrs,
        Impl(i) => &i.attrs,
        Macro(i) => &i.attrs,
        Mod(i) => &i.attrs,
        Static(i) => &i.attrs,
        Struct(i) => &i.attrs,
        Trait(i) => &i.attrs,
        TraitAlias(i) => &i.attrs,
        Type(i) => &i.attrs,
        Union(i) => &i.attrs,
        Use(i) => &i.attrs,
        _ => &[],
    }
}

impl Paths {
    fn use_tree(&mut self, tree: &syn::UseTree, before: &[String], is_public: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                let longer: Vec<String> = before.iter().cloned().chain([path.ident.to_string()]).collect();
                self.use_tree(&path.tree, &longer, is_public);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(tree, before, is_public));
            }
            syn::UseTree::Name(leaf) => self.use_leaf(before, &leaf.ident, &leaf.ident, is_public),
            syn::UseTree::Rename(leaf) => self.use_leaf(before, &leaf.ident, &leaf.rename, is_public),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.imports.push(Import { named: Named { parts: before.to_vec(), line }, name: None, is_public });
            }
        }
    }

    fn use_leaf(&mut self, before: &[String], leaf: &syn::Ident, name: &syn::Ident, is_public: bool) {
        let mut parts = before.to_vec();
        let mut name = name.to_string();
        if name == "self" {
            name = parts.last().cloned().unwrap_or(name);
        }
        parts.push(leaf.to_string());
        let line = leaf.span().start().line;
        self.imports.push(Import { named: Named { parts, line }, name: Some(name), is_public });
    }

    /// Paths in the arguments of a macro, which may have any grammar: names joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut parts: Vec<String> = Vec::new();
        let (mut line, mut colons, mut follows_dot) = (0, 0, false);
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) if !parts.is_empty() && colons == 2 => {
                    parts.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.keep(&mut parts, line);
                    colons = 0;
                    match other {
                        TokenTree::Ident(ident) if !follows_dot => {
                            line = ident.span().start().line;
                            parts.push(ident.to_string());
                            continue;
                        }
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(punct) => {
                            follows_dot = punct.as_char() == '.';
                            continue;
                        }
                        _ => {}
                    }
                    follows_dot = false;
                }
            }
        }
        self.keep(&mut parts, line);
    }

    fn keep(&mut self, parts: &mut Vec<String>, line: usize) {
        if !parts.is_empty() {
            self.named.push(Named { parts: std::mem::take(parts), line });
        }
    }

    /// Functions that attributes name in a string, such as serde's `default = "path::to"`.
    fn attribute_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.attribute_tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    let line = literal.span().start().line;
                    let path = syn::parse_str::<syn::LitStr>(&literal.to_string())
                        .ok()
                        .and_then(|text| text.parse::<syn::Path>().ok());
                    self.named.extend(path.map(|path| named(&path, line)));
                }
                _ => {}
            }
        }
    }
}

fn named(path: &syn::Path, line: usize) -> Named {
    Named { parts: path.segments.iter().map(|s| s.ident.to_string()).collect(), line }
}

fn line_of(path: &syn::Path) -> usize {
    path.segments.first().map_or(0, |s| s.ident.span().start().line)
}

impl<'a> Visit<'a> for Paths {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if !is_test_only(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_impl_item_const(&mut self, constant: &'a syn::ImplItemConst) {
        if !is_test_only(&constant.attrs) {
            visit::visit_impl_item_const(self, constant);
        }
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        if !is_test_only(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, value: &'a syn::FieldValue) {
        if !is_test_only(&value.attrs) {
            visit::visit_field_value(self, value);
        }
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        if !is_test_only(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr_block(&mut self, block: &'a syn::ExprBlock) {
        if !is_test_only(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if item.leading_colon.is_none() {
            let is_public = !matches!(item.vis, syn::Visibility::Inherited);
            self.use_tree(&item.tree, &[], is_public);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.leading_colon.is_none() {
            self.named.push(named(path, line_of(path)));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        let name = named(&call.path, line_of(&call.path));
        if name.parts.len() == 1 {
            self.macros.push(name)
        } else {
            self.named.push(name)
        }
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
        match &attribute.meta {
            syn::Meta::List(list) => self.attribute_tokens(list.tokens.clone()),
            syn::Meta::Path(_) | syn::Meta::NameValue(_) => {}
        }
    }

    /// `pub(in path)` restricts visibility, and imports nothing.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}
}
