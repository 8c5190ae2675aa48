// All kernels for one type of element, by name. emulated.cpp includes this once per type, each time in another namespace.

#undef TELOS_COMMON
#undef LOWEST
#include "activation.cu"
#include "head.cu"
#include "norm.cu"
#include "optimizer.cu"
#include "rotary.cu"

struct Entry {
  const char* name;
  Body body;
  uint64_t size;
};

#define ENTRY(NAME, PARAMS) \
  Entry { #NAME, [](const void* p) { NAME(*static_cast<const PARAMS*>(p)); }, sizeof(PARAMS) }

static const Entry* entry(const char* name) {
  static const Entry all[] = {
      ENTRY(activation, Pointwise),
      ENTRY(activation_backward, Pointwise),
      ENTRY(glu, Pointwise),
      ENTRY(glu_backward, Pointwise),
      ENTRY(rotary, Rotary),
      ENTRY(norm_narrow, NormForward),
      ENTRY(norm_wide, NormForward),
      ENTRY(norm_narrow_single, NormForward),
      ENTRY(norm_wide_single, NormForward),
      ENTRY(norm_backward_narrow, NormBackward),
      ENTRY(norm_backward_wide, NormBackward),
      ENTRY(norm_backward_narrow_single, NormBackward),
      ENTRY(norm_backward_wide_single, NormBackward),
      ENTRY(column_sums, ColumnSums),
      ENTRY(head_stats, HeadStats),
      ENTRY(head_cotangent, HeadCotangent),
      ENTRY(norm_parts, NormParts),
      ENTRY(norm_total, NormTotal),
      ENTRY(adamw, AdamW),
  };
  for (const Entry& one : all)
    if (std::strcmp(one.name, name) == 0) return &one;
  return nullptr;
}

static Body find(const char* name) {
  const Entry* found = entry(name);
  return found ? found->body : nullptr;
}

static uint64_t size(const char* name) {
  const Entry* found = entry(name);
  return found ? found->size : 0;
}

#undef ENTRY
