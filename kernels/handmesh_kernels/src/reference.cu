// One Chebyshev convolution, as it is written down: the version to read first, and to check by.
//
//   T_0 = x,  T_1 = L x,  T_k = 2 L T_(k-1) - T_(k-2),   y = relu(sum_k T_k theta_k + bias)
//
// Nothing is folded or fused: K - 1 launches of hm_recurrence, one of hm_combine, float32. decoder.cu
// says what it does otherwise and why.

// L in ELL form: (rows, width) neighbours and weights; unused slots have weight 0 and any valid
// neighbour.
struct ReferenceParams {
  const int* neighbours;  // (N, width)
  const float* weights;   // (N, width)
  const float* theta;     // (K, C_in, C_out)
  const float* bias;      // (C_out,)
  float* terms;           // (K, N, C_in) T_k x; term 0 is the input
  float* output;          // (N, C_out)
  int rows, width;        // N
  int order;              // K
  int channels_in;        // C_in
  int channels_out;       // C_out
  int term;               // of hm_recurrence: the k to compute, at least 1
  int relu;               // of hm_combine: whether to cut off below 0
  int unused;             // keeps the size a multiple of 8
};

// T_k from T_(k-1) and T_(k-2). One thread a node and channel; grid and block are one-dimensional.
extern "C" __global__ void __launch_bounds__(128) hm_recurrence(const ReferenceParams p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int size = p.rows * p.channels_in;
  if (i >= size) return;
  const int row = i / p.channels_in, channel = i % p.channels_in;

  // Step 1: a row of L times the term before.
  const float* before = p.terms + (p.term - 1) * size;
  float product = 0.f;
  for (int e = 0; e < p.width; ++e) {
    const int slot = row * p.width + e;
    product += p.weights[slot] * before[p.neighbours[slot] * p.channels_in + channel];
  }

  // Step 2: the recurrence.
  p.terms[p.term * size + i] = p.term == 1 ? product : 2.f * product - before[i - size];
}

// All terms times their theta. One thread an output node and channel.
extern "C" __global__ void __launch_bounds__(128) hm_combine(const ReferenceParams p) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= p.rows * p.channels_out) return;
  const int row = i / p.channels_out, channel = i % p.channels_out;
  float sum = p.bias[channel];
  for (int k = 0; k < p.order; ++k) {
    const float* x = p.terms + (k * p.rows + row) * p.channels_in;
    const float* theta = p.theta + k * p.channels_in * p.channels_out + channel;
    for (int c = 0; c < p.channels_in; ++c) sum += x[c] * theta[c * p.channels_out];
  }
  p.output[i] = p.relu ? fmaxf(sum, 0.f) : sum;
}
