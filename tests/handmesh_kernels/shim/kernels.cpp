// All kernels for the CPU. Each takes its struct by value; a wrapper named hm_run_* takes its address.
#include "cuda_fibers.h"
#include "half_shim.h"

#include "decoder.cu"
#include "reference.cu"

#define HM_RUN(name, type) \
  extern "C" void hm_run_##name(const void* p) { hm_##name(*static_cast<const type*>(p)); }

HM_RUN(expand_1, HeadParams)
HM_RUN(expand_4, HeadParams)
HM_RUN(expand_8, HeadParams)
HM_RUN(conv1_8, HeadParams)
HM_RUN(conv2_8, HeadParams)
HM_RUN(conv3_8, HeadParams)
HM_RUN(conv1_32, HeadParams)
HM_RUN(conv2_32, HeadParams)
HM_RUN(conv3_32, HeadParams)
HM_RUN(finish_1, HeadParams)
HM_RUN(finish_2, HeadParams)
HM_RUN(recurrence, ReferenceParams)
HM_RUN(combine, ReferenceParams)
#ifdef HM_TENSOR
HM_RUN(expand_tensor, HeadParams)
HM_RUN(conv1_tensor, HeadParams)
HM_RUN(conv2_tensor, HeadParams)
#endif

extern "C" int64_t hm_params_size(int which) {
  return which == 0 ? sizeof(HeadParams) : sizeof(ReferenceParams);
}
extern "C" int64_t hm_params_offset(int which) {
  const HeadParams* p = nullptr;
  const void* fields[] = {&p->latent, &p->maps4, &p->conv1, &p->conv4.rows, &p->blend, &p->joints,
                          &p->batch, &p->points};
  return reinterpret_cast<int64_t>(fields[which]);
}
