//! The tree of a template. Bodies are shared, because macros and recursive loops outlive the statement that made them.

use std::sync::Arc;

/// A statement, or text between statements.
#[derive(Debug)]
pub enum Statement {
    Text(Arc<str>),
    Output(Expr, usize),
    For(Arc<For>),
    If {
        branches: Vec<(Expr, Body)>,
        otherwise: Body,
        line: usize,
    },
    Set {
        target: Target,
        value: Expr,
        line: usize,
    },
    /// `{% set x | filters %}text{% endset %}`
    Capture {
        target: Target,
        filters: Vec<Filter>,
        body: Body,
        line: usize,
    },
    With {
        targets: Vec<(Target, Expr)>,
        body: Body,
        line: usize,
    },
    /// `{% filter name %}text{% endfilter %}`
    Filtered {
        filters: Vec<Filter>,
        body: Body,
        line: usize,
    },
    Macro(Arc<Macro>),
    /// `{% call(parameters) callee(arguments) %}text{% endcall %}`
    CallBlock {
        call: Expr,
        caller: Arc<Macro>,
        line: usize,
    },
    Generation(Body),
    Break,
    Continue,
}

/// Statements in order.
pub type Body = Arc<[Statement]>;

#[derive(Debug)]
pub struct For {
    pub target: Target,
    pub over: Expr,
    pub condition: Option<Expr>,
    pub recursive: bool,
    pub body: Body,
    pub otherwise: Body,
    pub line: usize,
}

#[derive(Debug)]
pub struct Macro {
    pub name: Arc<str>,
    pub parameters: Vec<(Arc<str>, Option<Expr>)>,
    pub body: Body,
    /// Whether the body reads `varargs`, and so accepts more positional arguments than its parameters.
    pub reads_varargs: bool,
    /// Whether the body reads `kwargs`, and so accepts keywords that are not parameters.
    pub reads_kwargs: bool,
}

/// The target of an assignment.
#[derive(Debug)]
pub enum Target {
    Name(Arc<str>),
    Attribute(Arc<str>, Arc<str>),
    Several(Vec<Target>),
}

/// A filter or a test with its arguments.
#[derive(Debug)]
pub struct Filter {
    pub name: Arc<str>,
    pub arguments: Arguments,
    pub line: usize,
}

#[derive(Debug, Default)]
pub struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    pub rest: Option<Expr>,
    pub named_rest: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug)]
pub enum Expr {
    None,
    Bool(bool),
    Int(i128),
    BigInt(Arc<str>),
    Float(f64),
    Str(Arc<str>),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Arguments>, usize),
    Filter(Box<Expr>, Box<Filter>),
    Test(Box<Expr>, Box<Filter>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Conditional(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
}
