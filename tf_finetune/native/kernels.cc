// What TensorFlow sees of rows.h and attention.h: operations of its C API, which stays the same from version to
// version. Built and loaded by compiled.py; bert/kernels.py calls them. Activations (T) are bfloat16 or float32, all
// arithmetic is float32.

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "attention.h"
#include "rows.h"
#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"

namespace tf_finetune {
namespace {

struct Attributes {
  float rate = 0.0f, epsilon = 0.0f;
  int32_t heads = 1;
};

void* create(TF_OpKernelConstruction* construction) {
  auto* attributes = new Attributes;
  TF_Status* status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrFloat(construction, "rate", &attributes->rate, status);
  TF_OpKernelConstruction_GetAttrFloat(construction, "epsilon", &attributes->epsilon, status);
  TF_OpKernelConstruction_GetAttrInt32(construction, "heads", &attributes->heads, status);
  TF_DeleteStatus(status);  // an operation has those that its formula has
  return attributes;
}

void destroy(void* attributes) { delete static_cast<Attributes*>(attributes); }

float scale_of(int64_t head_size) { return 1.0f / std::sqrt(static_cast<float>(head_size)); }

using Shape = std::vector<int64_t>;

int64_t size_of(const Shape& shape) {
  int64_t size = 1;
  for (int64_t dimension : shape) size *= dimension;
  return size;
}

// One call of an operation: its tensors, freed at the end.
class Call {
 public:
  explicit Call(TF_OpKernelContext* context) : context_(context), status_(TF_NewStatus()) {}
  ~Call() {
    for (TF_Tensor* tensor : tensors_) TF_DeleteTensor(tensor);
    TF_DeleteStatus(status_);
  }

  template <class T>
  const T* input(int i, Shape* shape = nullptr) {
    TF_Tensor* tensor = nullptr;
    TF_GetInput(context_, i, &tensor, status_);
    tensors_.push_back(tensor);
    if (shape != nullptr)
      for (int d = 0; d < TF_NumDims(tensor); ++d) shape->push_back(TF_Dim(tensor, d));
    return static_cast<const T*>(TF_TensorData(tensor));
  }

  template <class T>
  T* output(int i, const Shape& shape) {
    TF_Tensor* tensor = TF_AllocateOutput(context_, i, TF_ExpectedOutputDataType(context_, i), shape.data(),
                                          shape.size(), size_of(shape) * sizeof(T), status_);
    if (TF_GetCode(status_) != TF_OK) {
      TF_OpKernelContext_Failure(context_, status_);
      return nullptr;
    }
    tensors_.push_back(tensor);
    return static_cast<T*>(TF_TensorData(tensor));
  }

 private:
  TF_OpKernelContext* context_;
  TF_Status* status_;
  std::vector<TF_Tensor*> tensors_;
};

template <class T>
void compute_bias_gelu(void*, TF_OpKernelContext* context) {
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  if (T* y = call.output<T>(0, shape)) bias_gelu(x, bias, y, shape[0], shape[1]);
}

template <class T>
void compute_bias_gelu_grad(void*, TF_OpKernelContext* context) {
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const T* dy = call.input<T>(2);
  T* dx = call.output<T>(0, shape);
  float* dbias = call.output<float>(1, {shape[1]});
  T* y = call.output<T>(2, shape);
  if (dx && dbias && y) bias_gelu_grad(x, bias, dy, dx, dbias, y, shape[0], shape[1]);
}

template <class T>
void compute_dropout_add_norm(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape;
  const T* x = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const T* residual = call.input<T>(2);
  const float* gamma = call.input<float>(3);
  const float* beta = call.input<float>(4);
  const int64_t* seed = call.input<int64_t>(5);
  T* y = call.output<T>(0, shape);
  T* added = call.output<T>(1, shape);
  float* stats = call.output<float>(2, {shape[0], 2});
  if (y && added && stats)
    dropout_add_norm(x, bias, residual, gamma, beta, seed, chosen.rate, chosen.epsilon, y, added, stats, shape[0],
                     shape[1]);
}

template <class T>
void compute_dropout_add_norm_grad(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape;
  const T* added = call.input<T>(0, &shape);
  const float* stats = call.input<float>(1);
  const float* gamma = call.input<float>(2);
  const T* dy = call.input<T>(3);
  const int64_t* seed = call.input<int64_t>(4);
  T* dx = call.output<T>(0, shape);
  T* dresidual = call.output<T>(1, shape);
  float* sums = call.output<float>(2, {3, shape[1]});
  if (dx && dresidual && sums)
    dropout_add_norm_grad(added, stats, gamma, dy, seed, chosen.rate, dx, dresidual, sums, shape[0], shape[1]);
}

template <class T>
void compute_attention(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape, masks;  // of qkv, and batch, 1, 1, length
  const T* qkv = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const float* mask = call.input<float>(2, &masks);
  const int64_t* seed = call.input<int64_t>(3);
  const int64_t hidden = shape[1] / 3, size = hidden / chosen.heads;
  T* result = call.output<T>(0, {shape[0], hidden});
  float* stats = call.output<float>(1, {masks[0], chosen.heads, masks[3], 2});
  if (result && stats)
    attention(qkv, bias, mask, seed, {masks[0], chosen.heads, masks[3], size, chosen.rate, scale_of(size)}, result,
              stats);
}

template <class T>
void compute_attention_grad(void* attributes, TF_OpKernelContext* context) {
  const auto& chosen = *static_cast<Attributes*>(attributes);
  Call call(context);
  Shape shape, masks;
  const T* qkv = call.input<T>(0, &shape);
  const float* bias = call.input<float>(1);
  const float* mask = call.input<float>(2, &masks);
  const float* stats = call.input<float>(3);
  const T* dy = call.input<T>(4);
  const int64_t* seed = call.input<int64_t>(5);
  const int64_t size = shape[1] / 3 / chosen.heads;
  T* dqkv = call.output<T>(0, shape);
  float* dbias = call.output<float>(1, {shape[1]});
  if (dqkv && dbias)
    attention_grad(qkv, bias, mask, stats, dy, seed,
                   {masks[0], chosen.heads, masks[3], size, chosen.rate, scale_of(size)}, dqkv, dbias);
}

struct Operation {
  const char* name;
  std::vector<const char*> inputs, outputs, attributes;
  void (*narrow)(void*, TF_OpKernelContext*);
  void (*full)(void*, TF_OpKernelContext*);
};

#define KERNELS(function) function<BFloat16>, function<float>

const std::vector<Operation>& operations() {
  static const auto* all = new std::vector<Operation>{
      {"BiasGelu", {"x: T", "bias: float"}, {"y: T"}, {}, KERNELS(compute_bias_gelu)},
      {"BiasGeluGrad",
       {"x: T", "bias: float", "dy: T"},
       {"dx: T", "dbias: float", "y: T"},
       {},
       KERNELS(compute_bias_gelu_grad)},
      {"DropoutAddNorm",
       {"x: T", "bias: float", "residual: T", "gamma: float", "beta: float", "seed: int64"},
       {"y: T", "added: T", "stats: float"},
       {"rate: float", "epsilon: float"},
       KERNELS(compute_dropout_add_norm)},
      {"DropoutAddNormGrad",
       {"added: T", "stats: float", "gamma: float", "dy: T", "seed: int64"},
       {"dx: T", "dresidual: T", "sums: float"},
       {"rate: float"},
       KERNELS(compute_dropout_add_norm_grad)},
      {"Attention",
       {"qkv: T", "bias: float", "mask: float", "seed: int64"},
       {"context: T", "stats: float"},
       {"rate: float", "heads: int"},
       KERNELS(compute_attention)},
      {"AttentionGrad",
       {"qkv: T", "bias: float", "mask: float", "stats: float", "dy: T", "seed: int64"},
       {"dqkv: T", "dbias: float"},
       {"rate: float", "heads: int"},
       KERNELS(compute_attention_grad)},
  };
  return *all;
}

void register_operation(const Operation& operation, TF_Status* status) {
  const std::string name = std::string("TfFinetune") + operation.name;
  TF_OpDefinitionBuilder* definition = TF_NewOpDefinitionBuilder(name.c_str());
  TF_OpDefinitionBuilderAddAttr(definition, "T: {bfloat16, float}");
  for (const char* input : operation.inputs) TF_OpDefinitionBuilderAddInput(definition, input);
  for (const char* output : operation.outputs) TF_OpDefinitionBuilderAddOutput(definition, output);
  for (const char* attribute : operation.attributes) TF_OpDefinitionBuilderAddAttr(definition, attribute);
  TF_OpDefinitionBuilderSetShapeInferenceFunction(definition, TF_ShapeInferenceContextSetUnknownShape);
  TF_RegisterOpDefinition(definition, status);
  const std::pair<TF_DataType, void (*)(void*, TF_OpKernelContext*)> kernels[] = {{TF_BFLOAT16, operation.narrow},
                                                                                  {TF_FLOAT, operation.full}};
  for (const auto& [type, compute] : kernels) {
    TF_KernelBuilder* builder = TF_NewKernelBuilder(name.c_str(), "CPU", create, compute, destroy);
    TF_KernelBuilder_TypeConstraint(builder, "T", type, status);
    TF_RegisterKernelBuilder(name.c_str(), builder, status);
  }
}

[[maybe_unused]] const bool registered = [] {
  TF_Status* status = TF_NewStatus();
  for (const Operation& operation : operations()) register_operation(operation, status);
  TF_DeleteStatus(status);
  return true;
}();

}  // namespace
}  // namespace tf_finetune
