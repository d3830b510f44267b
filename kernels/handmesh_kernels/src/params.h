// What every kernel of the graph head is given: one struct, by value.
//
// B samples, F latent features, K terms of a Chebyshev convolution, N nodes, V vertices, C channels.
// handmesh_kernels/params.py describes the same struct to NumPy; a test compares the two.
#pragma once

// Widths are known when a kernel is compiled, so that loops unroll. They are multiples of 4 (of 16
// for the tensor cores); handmesh_kernels/packing.py fills up with zeros. -D changes them.
#ifndef HM_ORDER
#define HM_ORDER 3  // K
#endif
#ifndef HM_WIDTH0
#define HM_WIDTH0 64  // channels of a coarse node, before the first convolution
#define HM_WIDTH1 64  // after it
#define HM_WIDTH2 32  // after the second
#define HM_WIDTH3 32  // after the third; after the fourth there are 3, stored as 4
#endif
#ifndef HM_LATENT
#define HM_LATENT 512  // most latent features, filled up
#endif
#ifndef HM_VERTICES
#define HM_VERTICES 1280  // most vertices
#endif
#ifndef HM_HALF
#define HM_HALF 0  // 1: weights, and what lies in memory between kernels, are IEEE half
#endif

#define HM_JOINTS 21

#if HM_HALF
struct Stored { unsigned short bits; };  // of a half; see numeric.h
#else
typedef float Stored;
#endif

// One entry of a sparse row.
struct Entry {
  int column;   // row j * K + k of the maps that are gathered: term k on input node j
  float value;  // of T_k(L) U at (row, j); U copies parents to children, or is the identity
};

// One convolution, seen from its output: y = relu(sum_k T_k U z_k + bias), z_k = x theta_k.
struct Gather {
  const Entry* entries;  // (rows, width), the last convolution (width, rows): see decoder.cu
  const int* lengths;    // (rows,) entries in use
  const float* bias;     // (C,) batch norm folded in
  int rows;              // N, output nodes
  int width;             // of a row, with its padding
  int inputs;            // N_in * K, rows of the maps that are gathered
  int unused;            // keeps the size a multiple of 8
};

struct HeadParams {
  const float* latent;          // (B, given) what the trunk computed
  const float* joints_uv;       // (B, 21, 2) crop fractions; null: vertices are not anchored
  const Stored* expand_weight;  // (nodes, F, C0) fully connected layer, its rows sorted by node
  const float* expand_bias;     // (nodes, C0)
  const Stored* theta1;         // (C0, K * C1) of the first convolution, terms side by side
  const Stored* theta2;         // (C1, K * C2)
  const Stored* theta3;         // (C2, K * C3)
  const Stored* theta4;         // (C3, K * 4)
  Stored* maps1;                // (B, nodes * K, C1) x theta1, on the coarse nodes
  Stored* maps2;                // (B, N1 * K, C2)
  Stored* maps3;                // (B, N2 * K, C3) still on the middle level's nodes
  Stored* maps4;                // (B, N3 * K, 4)
  Gather conv1, conv2, conv3;   // hidden convolutions
  Gather conv4;                 // the last one; its rows are the vertices, in the mesh's order
  const float* blend;           // (21, V) share of each joint in a vertex's anchor
  const Stored* pose_weight;    // (64, points) vertices to 21 joints with the wrist's depth at 0,
                                // then the wrist's depth
  const float* pose_bias;       // (64,)
  float* vertices;              // (B, V, 3) out
  float* joints;                // (B, 21, 3) out
  int batch;                    // B
  int given;                    // latent features in a row of `latent`
  int features;                 // F: the same, filled up to a multiple of 16
  int nodes;                    // coarse nodes
  int points;                   // 3 * V, filled up to a multiple of 4
  int unused;                   // keeps the size a multiple of 8
};
