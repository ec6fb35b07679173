// The two formulas that look at one token at a time: GELU, and the end of each half of a block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "dropout.h"
#include "numbers.h"
#include "threads.h"

namespace tf_finetune {

template <class T>
void bias_gelu(const T* x, const float* bias, T* y, int64_t rows, int64_t width) {
  for_rows(rows, width, [=](Rows mine) {
    for (int64_t r = mine.begin; r < mine.end; ++r) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        const float value = wide(x[r * width + j]) + bias[j];
        narrow(value * Normal(value).below, &y[r * width + j]);
      }
    }
  });
}

// y is what bias_gelu gave: whoever asks for gradients needs it as well, and need not have kept it.
template <class T>
void bias_gelu_grad(const T* x, const float* bias, const T* dy, T* dx, float* dbias, T* y, int64_t rows,
                    int64_t width) {
  sum_rows(rows, width, width, dbias, [=](Rows mine, float* sums) {
    for (int64_t r = mine.begin; r < mine.end; ++r) {
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        const float value = wide(x[r * width + j]) + bias[j];
        const Normal normal(value);
        const float slope = (normal.below + value * normal.density) * wide(dy[r * width + j]);
        narrow(slope, &dx[r * width + j]);
        narrow(value * normal.below, &y[r * width + j]);
        sums[j] += slope;
      }
    }
  });
}

// y = LayerNorm(residual + dropout(x + bias)); `added` is what is normalised, `stats` its mean and 1 / deviation a row.
template <class T>
void dropout_add_norm(const T* x, const float* bias, const T* residual, const float* gamma, const float* beta,
                      const int64_t* seed, float rate, float epsilon, T* y, T* added, float* stats, int64_t rows,
                      int64_t width) {
  for_rows(rows, width, [=](Rows mine) {
    Mask mask(seed, rate, mine.end * width);
    std::vector<float> row(width);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      float* values = row.data();
      for (int64_t from = 0; from < width; from += Mask::kBlock) {
        const int64_t at = r * width + from, count = std::min(Mask::kBlock, width - from);
        const uint16_t* lanes = mask.lanes(at, count);
#pragma omp simd
        for (int64_t j = 0; j < count; ++j)
          values[from + j] =
              rounded<T>(wide(residual[at + j]) + (wide(x[at + j]) + bias[from + j]) * mask.factor(lanes[j]));
      }
      float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < width; ++j) sum += values[j];
      const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
      for (int64_t j = 0; j < width; ++j) squares += (values[j] - mean) * (values[j] - mean);
      const float scale = 1.0f / std::sqrt(squares / width + epsilon);
#pragma omp simd
      for (int64_t j = 0; j < width; ++j) {
        narrow(values[j], &added[r * width + j]);
        narrow((values[j] - mean) * scale * gamma[j] + beta[j], &y[r * width + j]);
      }
      stats[2 * r] = mean;
      stats[2 * r + 1] = scale;
    }
  });
}

// `sums` are the gradients of gamma, beta and bias, one after the other.
template <class T>
void dropout_add_norm_grad(const T* added, const float* stats, const float* gamma, const T* dy, const int64_t* seed,
                           float rate, T* dx, T* dresidual, float* sums, int64_t rows, int64_t width) {
  sum_rows(rows, width, 3 * width, sums, [=](Rows mine, float* mine_sums) {
    float *dgamma = mine_sums, *dbeta = mine_sums + width, *dbias = mine_sums + 2 * width;
    Mask mask(seed, rate, mine.end * width);
    std::vector<float> row(2 * width);
    for (int64_t r = mine.begin; r < mine.end; ++r) {
      float *normal = row.data(), *slope = row.data() + width;
      const float mean = stats[2 * r], scale = stats[2 * r + 1];
      float sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
      for (int64_t j = 0; j < width; ++j) {
        const float upstream = wide(dy[r * width + j]);
        normal[j] = (wide(added[r * width + j]) - mean) * scale;
        slope[j] = upstream * gamma[j];
        dgamma[j] += upstream * normal[j];
        dbeta[j] += upstream;
        sum += slope[j];
        product += slope[j] * normal[j];
      }
      sum /= width;
      product /= width;
      for (int64_t from = 0; from < width; from += Mask::kBlock) {
        const int64_t at = r * width + from, count = std::min(Mask::kBlock, width - from);
        const uint16_t* lanes = mask.lanes(at, count);
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) {
          const float inner = scale * (slope[from + j] - sum - normal[from + j] * product);
          const float kept = inner * mask.factor(lanes[j]);
          narrow(inner, &dresidual[at + j]);
          narrow(kept, &dx[at + j]);
          dbias[from + j] += kept;
        }
      }
    }
  });
}

}  // namespace tf_finetune
