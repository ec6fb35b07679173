// bfloat16, and the functions that are no single instruction.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace tf_finetune {

struct BFloat16 {
  uint16_t bits;
};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

inline float of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float wide(float value) { return value; }
inline float wide(BFloat16 value) { return of_bits(uint32_t{value.bits} << 16); }

inline void narrow(float value, float* to) { *to = value; }
inline void narrow(float value, BFloat16* to) {  // to the nearest, ties to even
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to->bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}

template <class T>
inline float rounded(float value) {
  T result;
  narrow(value, &result);
  return wide(result);
}

// e**x to 2e-7 of itself, 0 below -87; the polynomial is a minimax fit on [-ln(2)/2, ln(2)/2].
inline float exponential(float x) {
  const float bounded = x < -87.0f ? -87.0f : x;
  const float turns = std::floor(bounded * 1.44269504f + 0.5f);
  const float r = (bounded - turns * 0.693359375f) + turns * 2.12194440e-4f;
  float p = 0.0013836838f;
  p = p * r + 0.0083748223f;
  p = p * r + 0.0416682251f;
  p = p * r + 0.1666641980f;
  p = p * r + 0.4999999106f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float power = of_bits(static_cast<uint32_t>(static_cast<int32_t>(turns) + 127) << 23);
  return x < -87.0f ? 0.0f : p * power;
}

// The normal distribution at x: its function to 4e-7 of itself in both tails, and its density.
struct Normal {
  explicit Normal(float x) {
    const float a = std::fabs(x), e = exponential(-0.5f * x * x);
    const float t = 1.0f / (1.0f + 0.35f * a);  // a minimax fit in t of Mills' ratio
    float p = -0.0291459393f;
    p = p * t + 0.1439717412f;
    p = p * t - 0.2557143569f;
    p = p * t + 0.1591742635f;
    p = p * t - 0.0231099036f;
    p = p * t + 0.1055080295f;
    p = p * t + 0.1198328585f;
    p = p * t + 0.1398618668f;
    p = p * t + 0.1396214068f;
    const float tail = e * t * p;
    below = x > 0.0f ? 1.0f - tail : tail;
    density = 0.398942280f * e;
  }
  float below, density;
};

}  // namespace tf_finetune
