// The sparse half of a convolution, shared by the scalar and the tensor-core kernels.
#pragma once

#include "numeric.h"

// Four channels, from `channel`, of one output row: relu(bias + sum of value * map).
//
// C / 4 neighbouring threads take one row, so that a map's row is read in one piece of 16 (half: 8)
// bytes a thread, and the row's entries, the same for all of them, come from one address.
template <int C>
__device__ __forceinline__ float4 gathered(const Gather& g, const Stored* maps, int row, int channel) {
  float4 sum = load4(g.bias + channel);
  const Entry* entries = g.entries + row * g.width;
  const int length = g.lengths[row];
  for (int e = 0; e < length; ++e) {
    const Entry entry = entries[e];
    sum = add_scaled(sum, entry.value, load4(maps + entry.column * C + channel));
  }
  return relu4(sum);
}
