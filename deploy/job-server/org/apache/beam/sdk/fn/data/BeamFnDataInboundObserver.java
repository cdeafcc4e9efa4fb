package org.apache.beam.sdk.fn.data;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.apache.beam.model.fnexecution.v1.BeamFnApi.Elements;
import org.apache.beam.vendor.grpc.v1p60p1.com.google.protobuf.ByteString;

/**
 * Passes what a worker puts out on as it comes, in place of Beam's class of this name.
 *
 * <p>That one (2.62) keeps it all, up to a hundred messages, until the worker says that the bundle is done. In a batch
 * job of Flink a bundle is all that one slot has of a stage: with more messages than that the worker waits for room and
 * the engine for the worker, forever; with less, for want of memory.
 */
public class BeamFnDataInboundObserver implements CloseableFnDataReceiver<Elements> {

  /** Why nothing more is taken: nobody waits for it. */
  public static final class CloseException extends Exception {
    public static final CloseException INSTANCE = new CloseException();

    private CloseException() {
      super("The bundle has ended", null, false, false);
    }
  }

  private final List<DataEndpoint<?>> data;
  private final List<TimerEndpoint<?>> timers;
  private final Map<List<String>, FnDataReceiver<ByteString>> open = new HashMap<>();
  private CountDownLatch ended = new CountDownLatch(1);
  private volatile Exception failure;

  private BeamFnDataInboundObserver(List<DataEndpoint<?>> data, List<TimerEndpoint<?>> timers) {
    this.data = data;
    this.timers = timers;
    reset();
  }

  public static BeamFnDataInboundObserver forConsumers(List<DataEndpoint<?>> data, List<TimerEndpoint<?>> timers) {
    return new BeamFnDataInboundObserver(data, timers);
  }

  /** Called by the thread that has read a message: it reads the next one when this one has found its way. */
  @Override
  public void accept(Elements elements) throws Exception {
    if (failure != null) {
      throw failure;
    }
    try {
      if (multiplexElements(elements)) {
        ended.countDown();
      }
    } catch (Exception e) {
      end(e);
      throw e;
    }
  }

  /** Returns whether all there was to come has come. */
  public synchronized boolean multiplexElements(Elements elements) throws Exception {
    for (Elements.Data it : elements.getDataList()) {
      pass(List.of(it.getTransformId()), it.getData(), it.getIsLast());
    }
    for (Elements.Timers it : elements.getTimersList()) {
      pass(List.of(it.getTransformId(), it.getTimerFamilyId()), it.getTimers(), it.getIsLast());
    }
    return open.isEmpty();
  }

  private void pass(List<String> name, ByteString encoded, boolean last) throws Exception {
    FnDataReceiver<ByteString> receiver = open.get(name);
    if (receiver == null) {
      throw new IllegalStateException("Nobody takes, or takes any more, what comes for " + name);
    }
    receiver.accept(encoded);
    if (last) {
      open.remove(name);
    }
  }

  /** Wait until all has come and was passed on. */
  public void awaitCompletion() throws Exception {
    ended.await();
    if (failure != null) {
      throw failure;
    }
  }

  private void end(Exception why) {
    if (failure == null) {
      failure = why;
    }
    ended.countDown();
  }

  @Override
  public void flush() {}

  @Override
  public void close() {
    end(CloseException.INSTANCE);
  }

  public boolean isConsumingReceivedData() {
    return ended.getCount() > 0;
  }

  public synchronized List<String> getUnfinishedEndpoints() {
    List<String> names = new ArrayList<>();
    open.keySet().forEach(name -> names.add(String.join(" ", name)));
    return names;
  }

  /** Be as new. */
  public synchronized void reset() {
    open.clear();
    data.forEach(it -> open.put(List.of(it.getTransformId()), taking(it)));
    timers.forEach(it -> open.put(List.of(it.getTransformId(), it.getTimerFamilyId()), taking(it)));
    failure = null;
    ended = new CountDownLatch(open.isEmpty() ? 0 : 1);
  }

  private static <T> FnDataReceiver<ByteString> taking(DataEndpoint<T> it) {
    return DecodingFnDataReceiver.create(it.getCoder(), it.getReceiver());
  }

  private static <T> FnDataReceiver<ByteString> taking(TimerEndpoint<T> it) {
    return DecodingFnDataReceiver.create(it.getCoder(), it.getReceiver());
  }
}
